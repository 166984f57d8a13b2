"""`hopgate serve`: what is checked before, how granian is set up, and the first curl."""

from __future__ import annotations

import asyncio
import fcntl
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from app.bootstrap import check_urls, open_store, utc_now
from app.domain.errors import HopgateError
from app.resilience.deadline import DRAIN_S
from app.service import keys
from app.settings import DRAINING, Settings, SettingsError
from app.telemetry import logs

QUICKSTART = "quickstart"


class AddressInUse(HopgateError):
    """Somebody listens there already."""


class DataInUse(HopgateError):
    """Another embedded gateway keeps its data there."""


def check(settings: Settings) -> IO[str] | None:
    """
    Find in this process what would otherwise end every worker, or be found out too late.

    Returns:
        The lock on the data of an embedded gateway: keep it while serving. Each has a cache of
        its own, and a second one would never hear of the changes that the first one makes.

    Raises:
        DataInUse: there is one already.
        SettingsError: a limit or a URL that cannot be read.
        AddressInUse: granian shares its port with whoever is there; two gateways that do
            not know of each other must not.
    """
    from hopgate_limiter import Rate

    for name in ("limit_redirect", "limit_api", "limit_create", "limit_not_found"):
        try:
            Rate.parse(getattr(settings, name))
        except (ValueError, OverflowError) as error:
            message = f"HOPGATE_{name.upper()}: {error}"
            raise SettingsError(message) from None
    asyncio.run(check_urls(settings))
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            message = f"cannot listen on {settings.bind}: {error.strerror} (set HOPGATE_BIND)"
            raise AddressInUse(message) from None
    return _locked(settings) if settings.embedded else None


def _locked(settings: Settings) -> IO[str]:
    file = (settings.data_dir / "gateway.lock").open("w", encoding="ascii")
    try:
        # Its workers inherit the lock, so it lasts as long as any of them.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        message = f"another gateway serves from {settings.data_dir} (set HOPGATE_DATA_DIR)"
        raise DataInUse(message) from None
    return file


async def quickstart(settings: Settings) -> str:
    """
    Return a greeting with a curl that works.

    Its key lasts until the next start, and is made only while there is no lasting one: then
    nothing secret needs to be kept in a file.
    """
    async with open_store(settings) as store:
        existing = [key for key in await store.list_keys() if key.revoked_at is None]
        for key in existing:
            if key.name == QUICKSTART:
                await store.revoke_key(key.key_id, now=utc_now())
        lines = [
            f"Hopgate serves on {settings.public_url}, embedded: data in {settings.sqlite_path}.",
            "",
        ]
        if any(key.name != QUICKSTART for key in existing):
            return "\n".join([*lines, "Keys: hopgate keys list", ""])
        text, record = keys.issue(QUICKSTART, keys.ALL_SCOPES, now=utc_now(), choice=secrets.choice)
        await store.add_key(record)
    return "\n".join(
        [
            *lines,
            "Make a link (this key lasts until the next start; `hopgate keys create` makes one that stays):",
            "",
            f"  curl -i {settings.public_url}/api/v1/links \\",
            f"    -H 'Authorization: Bearer {text}' \\",
            "    -H 'Content-Type: application/json' \\",
            """    -d '{"long_url": "https://example.com/a/long/path?with=query"}'""",
            "",
            "Then open its short_url. Stop with Ctrl-C.",
            "",
        ]
    )


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; requests under way are answered first."""
    from granian.constants import HTTPModes, Interfaces, Loops
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    from app.commands.server import Server

    server = Server(
        "app.main:create",
        factory=True,
        interface=Interfaces.RSGI,
        address=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop=Loops.uvloop,
        # None of the limits below hold for HTTP/2, nor until it is clear which a connection speaks.
        http=HTTPModes.http1,
        websockets=False,
        # This counts connections, idle ones too, and refuses silently: the app itself sheds
        # load, so granian's limit must never be what is met first.
        backlog=4096,
        backpressure=16_384,
        http1_settings=HTTP1Settings(header_read_timeout=5_000, max_buffer_size=32_768),
        respawn_failed_workers=True,
        workers_kill_timeout=int(DRAIN_S - settings.drain_delay_s),
        log_level=LogLevels(settings.log_level),
        log_dictconfig=logs.granian(),
    )
    with tempfile.TemporaryDirectory(prefix="hopgate-metrics-") as folder:
        # The workers that granian starts find it in their environment.
        os.environ["HOPGATE_METRICS_DIR"] = folder
        # An embedded gateway has nobody beside it to whom visitors could go.
        if not settings.embedded and settings.drain_delay_s > 0:
            close, draining = server.signal_handler_interrupt, Path(folder) / DRAINING
            server.on_startup(lambda: _say_so_first(close, draining, settings.drain_delay_s))
        server.serve()


def _say_so_first(close: Callable[..., None], draining: Path, delay_s: float) -> None:
    """On SIGTERM, let /readyz say so for *delay_s*, then call *close*; on a second one, at once."""

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, close)
        draining.touch()
        closing = threading.Timer(delay_s, close)
        closing.daemon = True
        closing.start()

    signal.signal(signal.SIGTERM, end)
