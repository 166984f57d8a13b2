"""HAProxy in front of a gateway on this machine."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from tests.servers.hopgate import Process
from tests.servers.ports import free_ports, is_listening

_PLACES = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
_START_TIMEOUT_S = 10.0
_CONFIGURATION = """
global
    maxconn 100
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen gateway
    bind 127.0.0.1:{port}
    option httpchk GET /healthz
    server gateway 127.0.0.1:{gateway} check inter 200 {options}
"""


def binary() -> str | None:
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:{_PLACES}")


class PrivateHaproxy(Process):
    """`with PrivateHaproxy(directory, 8000, "send-proxy") as haproxy:` listens on a free port."""

    def __init__(self, directory: Path, gateway_port: int, options: str) -> None:
        program = binary()
        if program is None:
            raise RuntimeError("HAProxy was not found: install the package haproxy")
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        configuration = directory / f"haproxy-{self.port}.cfg"
        text = _CONFIGURATION.format(port=self.port, gateway=gateway_port, options=options)
        configuration.write_text(text)
        log = directory / f"haproxy-{self.port}.log"
        super().__init__([program, "-db", "-f", str(configuration)], {}, log)

    def start(self) -> None:
        super().start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not is_listening(self.port):
            self.check_alive()
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)
