"""URLs of Redis: what the cache or the limiter cannot read is refused before a start."""

from __future__ import annotations

import pytest

from tests.servers.hopgate import UNREACHABLE, hopgate


@pytest.mark.parametrize(
    "url",
    [
        "redis://:geheim@127.0.0.1:1/abc",
        "redis://:geheim@127.0.0.1:1/0/1",
        "redis://:geheim@127.0.0.1:1/0?socket_keepalive=1",
        "redis://:geheim@127.0.0.1:1/0?health_check_interval=5",
        "redis://:geheim@127.0.0.1:1/0#geheim",
        "rediss://:geheim@127.0.0.1:1/0?ssl_ca_certs=/nowhere",
        "redis:///0",
        "unix://nowhere",
        "redis+sentinel://:geheim@127.0.0.1:1/",
        "redis+sentinel://:geheim@127.0.0.1:1/hop/0?socket_keepalive=1",
        "redis+sentinel://:geheim@127.0.0.1:1/hop?sentinel_db=1",
    ],
)
@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_url_is_refused_in_one_line(tmp_path, url, command):
    settings = {**UNREACHABLE, "HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_REDIS_URL": url}

    done = hopgate(settings, command, timeout=20)

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert "Redis" in line
    assert "geheim" not in line
    assert done.stdout == ""
