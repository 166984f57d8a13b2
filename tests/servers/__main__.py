"""
Name the server programs that the tests need and this machine lacks, in one line.

Usage: python -m tests.servers
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_POSTGRESQL = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)
_PLACES = ":".join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/lib/erlang/bin", *_POSTGRESQL])
# Each program and the Debian package that contains it.
_PROGRAMS = {
    "initdb": "postgresql",
    "redis-server": "redis-server",
    "rabbitmq-server": "rabbitmq-server",
    "nginx": "nginx-light",
    "pgbouncer": "pgbouncer",
    "promtool": "prometheus",
}


def main() -> None:
    missing = sorted(
        {package for program, package in _PROGRAMS.items() if not shutil.which(program, path=_PLACES)}
    )
    if missing:
        raise SystemExit(f"hopgate's tests need server programs: apt-get install {' '.join(missing)}")


if __name__ == "__main__":
    main()
