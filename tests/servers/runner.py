"""
Start one server of each kind, print their directories as JSON, and wait: for tests of how servers end.

Usage: python -m tests.servers.runner DIRECTORY
"""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.servers.hopgate import Gateway, hopgate
from tests.servers.nginx import PrivateNginx
from tests.servers.postgres import PrivatePostgres
from tests.servers.rabbitmq import PrivateRabbit
from tests.servers.redis import PrivateRedis


def main(directory: Path) -> None:
    settings = {"HOPGATE_DATA_DIR": str(directory / "data")}
    assert hopgate(settings, "migrate").returncode == 0
    gateways = [Gateway(settings, directory) for _ in range(2)]
    nginx = PrivateNginx(directory, [gateway.port for gateway in gateways])
    redis, rabbitmq, postgres = PrivateRedis(), PrivateRabbit(), PrivatePostgres()
    starts = [gateways[0].start, nginx.start, redis.start, rabbitmq.start, postgres.__enter__]
    with ThreadPoolExecutor() as starting:
        for started in [starting.submit(start) for start in starts]:
            started.result()
    print(json.dumps([str(server.directory) for server in (redis, rabbitmq, postgres)]), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
