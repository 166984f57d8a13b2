"""The nginx that ships, in front of gateways on this machine."""

from __future__ import annotations

import os
import re
import shutil
import time
from pathlib import Path

from tests.servers.hopgate import Process
from tests.servers.ports import free_ports, is_listening

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "nginx"
_PLACES = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
_START_TIMEOUT_S = 10.0


class PrivateNginx(Process):
    """
    `with PrivateNginx(directory, [8001, 8002]) as nginx:` runs `deploy/nginx` on a free port.

    nginx.conf is used as it is; only the port in listen.conf and the addresses in
    gateways.conf are replaced, which is what these two files are for.
    """

    def __init__(self, directory: Path, gateway_ports: list[int]) -> None:
        binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:{_PLACES}")
        if binary is None:
            raise RuntimeError("nginx was not found: install the package nginx-light")
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        # A folder of its own, open to the user that nginx's processes change to.
        self.directory = directory / f"nginx-{self.port}"
        self.directory.mkdir()
        self._write_configuration(gateway_ports)
        place = ["-p", f"{self.directory}/", "-c", str(self.directory / "nginx.conf")]
        # The same arguments as in docker-compose.yml, other places.
        arguments = [binary, "-e", "stderr", *place, "-g", "daemon off;"]
        super().__init__(arguments, {}, self.directory / "output.log")

    def start(self) -> None:
        super().start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not is_listening(self.port):
            self.check_alive()
            assert time.monotonic() < deadline, self.output
            time.sleep(0.02)

    def _write_configuration(self, gateway_ports: list[int]) -> None:
        shutil.copy(CONFIGURATION / "nginx.conf", self.directory)
        listen = (CONFIGURATION / "listen.conf").read_text()
        for address in ("", "[::]:"):
            own = f"listen {'[::1]' if address else '127.0.0.1'}:{self.port}"
            listen, replaced = re.subn(
                rf"^listen {re.escape(address)}8080\b", own, listen, flags=re.MULTILINE
            )
            assert replaced == 1
        (self.directory / "listen.conf").write_text(listen)
        gateways = (CONFIGURATION / "gateways.conf").read_text()
        names = sorted(set(re.findall(r"^\s*server (gateway-\d+:8000) ", gateways, re.MULTILINE)))
        for name, port in zip(names, gateway_ports, strict=True):
            gateways = gateways.replace(name, f"127.0.0.1:{port}")
        (self.directory / "gateways.conf").write_text(gateways)
