"""PgBouncer in front of a private PostgreSQL server, pooling by transaction."""

from __future__ import annotations

import os
import pwd
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.servers.hopgate import Process
from tests.servers.ports import free_ports, is_listening

_PLACES = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
_START_TIMEOUT_S = 10.0


class PrivatePgBouncer(Process):
    """
    `with PrivatePgBouncer(directory, url) as pooler:` listens on a free port; `pooler.url` leads to *url*.

    Args:
        ignored: startup parameters that it accepts and ignores.
    """

    def __init__(self, directory: Path, url: str, *, ignored: str = "") -> None:
        binary = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:{_PLACES}")
        if binary is None:
            raise RuntimeError("pgbouncer was not found: install the package pgbouncer")
        parts = urlsplit(url)
        self.port = free_ports(1)[0]
        user = parts.username or "postgres"
        self.url = f"postgresql://{user}@127.0.0.1:{self.port}{parts.path}"
        users = directory / "users.txt"
        users.write_text(f'"{user}" "{parts.password or ""}"\n')
        configuration = directory / "pgbouncer.ini"
        configuration.write_text(
            f"""
[databases]
* = host=127.0.0.1 port={parts.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
ignore_startup_parameters = {ignored}
"""
        )
        for path in (directory, users, configuration):
            path.chmod(0o755)
        # It refuses to run as root.
        as_other = ["-u", pwd.getpwuid(65534).pw_name] if os.geteuid() == 0 else []
        super().__init__([binary, *as_other, str(configuration)], {}, directory / "pgbouncer.log")

    def start(self) -> None:
        super().start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not is_listening(self.port):
            self.check_alive()
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
