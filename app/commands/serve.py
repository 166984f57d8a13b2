"""`hopgate serve`: checks before the start, granian's configuration, the printed curl, draining."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from app.adapters.guards import DependencyGuards
from app.bootstrap import open_store, utc_now
from app.commands import key_text
from app.commands.front_sockets import FrontSockets
from app.commands.open_console import sign_in_url
from app.commands.shadowed import described, shadowed
from app.domain.errors import HopgateError, InvalidInput, SettingsError, Unavailable
from app.ports import ApiKey, ApiKeyStore
from app.resilience.deadline import DRAIN_S
from app.service import keys
from app.settings import DRAINING, Settings
from app.telemetry import logs

if TYPE_CHECKING:
    from app.commands.granian_server import Server
    from app.web.certificates import Certificates

log = logging.getLogger(__name__)

_FIRST_KEY = "first start"


class AddressInUse(HopgateError):
    """The address to listen on is in use."""


def check_pages(settings: Settings) -> None:
    """
    Check that the pages for people can be made, and QR codes with a logo drawn.

    Raises:
        SettingsError: there is no such language, or a template or a logo that cannot be used.
    """
    from app.web import qr_logo
    from app.web.pages import load

    load(settings.language, settings.pages)
    if settings.qr_logo is not None:
        qr_logo.load(settings.qr_logo)


def check_address(settings: Settings) -> None:
    """
    Check in the parent process that the address is free.

    Raises:
        AddressInUse: another process listens there. granian would share the port with it
            (SO_REUSEPORT), and connections would be split between two gateways.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            message = f"cannot listen on {settings.bind}: {error.strerror} (set HOPGATE_BIND)"
            raise AddressInUse(message) from None


async def first_start(settings: Settings) -> str:
    """
    Store the key of the settings, if they have one; return the greeting of an embedded gateway.

    Logs links of an embedded gateway that are hidden by its pages.

    The greeting contains a new admin key if the store has never had one: this is the only time that it
    can be seen. So a log of later starts holds no secret.

    Raises:
        SettingsError: the key of the settings is none.
        Unavailable: the embedded store did not answer. A gateway of a stack serves without PostgreSQL,
            and stores the key at a later start.
    """
    given = settings_key(settings)
    if not settings.embedded:
        if given is not None:
            try:
                # With the limits of a gateway: it starts without PostgreSQL rather than late.
                async with open_store(settings, DependencyGuards()) as store:
                    await _add(store, given)
            except Unavailable as error:
                log.warning("HOPGATE_KEY is not stored: %s", error)
        return ""
    async with open_store(settings) as store:
        text, link = None, ""
        if given is not None:
            await _add(store, given)
        elif not await store.list_keys():
            text, record = keys.issue(_FIRST_KEY, keys.ALL_SCOPES, now=utc_now(), choice=secrets.choice)
            await store.add_key(record)
            link = await sign_in_url(settings, store) if settings.console == "on" else ""
        # This start may have brought the schema of a later version.
        for slug in await shadowed(store, settings.public_url):
            log.warning("%s", described(slug))
    return _greeting(settings, text, link)


async def _add(store: ApiKeyStore, given: ApiKey) -> None:
    await store.add_key(given)
    stored = await store.get_key(given.key_id)
    if stored is None or given.secret_hash in stored.hashes(utc_now()):
        return
    if stored.old_secret_hash is not None:
        # No reason to stay away: this gateway serves whatever key its clients have.
        log.warning(
            "HOPGATE_KEY counts no more: the key %s has been rotated; set the present one", given.key_id
        )
    else:
        raise SettingsError("HOPGATE_KEY: another key has its id; `hopgate keys generate` prints one")


def settings_key(settings: Settings) -> ApiKey | None:
    """
    Return what to store for HOPGATE_KEY, or for the content of HOPGATE_KEY_FILE.

    Raises:
        SettingsError: it cannot be read, or is no key. It is not quoted.
    """
    text = key_text.read(settings)
    if text is None:
        return None
    name = "HOPGATE_KEY" if settings.key_file is None else "HOPGATE_KEY_FILE"
    try:
        return keys.record(text, "HOPGATE_KEY", keys.ALL_SCOPES, now=utc_now())
    except InvalidInput:
        raise SettingsError(f"{name}: is no key; `hopgate keys generate` prints one") from None


def _greeting(settings: Settings, key: str | None, link: str) -> str:
    lines = [f"Hopgate serves on {settings.local_url}, embedded: data in {settings.sqlite_path}."]
    if settings.base_url:
        lines.append(f"Short links start with {settings.base_url}.")
    if key is None:
        more = ["Open the console: hopgate console"] if settings.console == "on" else []
        return "\n".join([*lines, "", "Make an API key: hopgate keys create NAME", *more, ""])
    opened = ["Or open the console; this link signs in once, within ten minutes:", "", f"  {link}", ""]
    return "\n".join(
        [
            *lines,
            "",
            "Create a link. The key is shown this once; hopgate keys create NAME makes others:",
            "",
            f"  curl -i {settings.public_url if settings.tls_cert else settings.local_url}/api/v1/links \\",
            f"    -H 'Authorization: Bearer {key}' \\",
            "    -H 'Content-Type: application/json' \\",
            """    -d '{"long_url": "https://example.com/a/long/path?with=query"}'""",
            "",
            "Then open its short_url. Stop with Ctrl-C.",
            "",
            *(opened if link else []),
        ]
    )


def serve(settings: Settings, *, with_front: bool) -> None:
    """
    Serve until SIGTERM or SIGINT, then finish the requests in flight.

    Raises:
        SettingsError: the front cannot have its private socket.
    """
    with tempfile.TemporaryDirectory(prefix="hopgate-") as folder:
        front = FrontSockets(settings.front_threads, Path(folder)) if with_front else None
        server = _server(settings, front)
        # granian's workers read it from their environment.
        os.environ["HOPGATE_METRICS_DIR"] = folder
        stop, draining = server.signal_handler_interrupt, Path(folder) / DRAINING
        # An embedded gateway is the only one: there is no other to send clients to.
        delay_s = 0.0 if settings.embedded else settings.drain_delay_s
        server.on_startup(lambda: _drain_on_signals(stop, draining, delay_s))
        server.serve()


def _server(settings: Settings, front: FrontSockets | None) -> Server:
    from granian.constants import HTTPModes, Interfaces, Loops
    from granian.http import HTTP1Settings
    from granian.log import LogLevels

    from app.commands.granian_server import Server

    certificates = None
    if settings.tls_cert is not None:
        from app.web.certificates import Certificates

        certificates = Certificates.of(settings)
    return Server(
        "app.main:create",
        front=front,
        is_renewed=None if certificates is None else partial(_is_renewed, certificates),
        factory=True,
        interface=Interfaces.RSGI,
        address=settings.host,
        port=settings.port,
        workers=settings.workers,
        loop=Loops.uvloop,
        # The limits below do not apply to HTTP/2, nor before the version of a connection is detected.
        http=HTTPModes.http1,
        websockets=False,
        # granian's backpressure counts connections, idle ones too, and refuses silently. Hopgate sheds
        # load itself, so this limit must never be reached first.
        backlog=4096,
        backpressure=16_384,
        http1_settings=HTTP1Settings(header_read_timeout=5_000, max_buffer_size=32_768),
        respawn_failed_workers=True,
        workers_kill_timeout=int(DRAIN_S - settings.drain_delay_s),
        log_level=LogLevels(settings.log_level),
        log_dictconfig=logs.granian(),
    )


def _is_renewed(certificates: Certificates) -> bool:
    """Tell whether the workers can use the certificates as they are now; one line says why not."""
    try:
        certificates.check()
    except SettingsError as error:
        log.error("the certificates stay as they were: %s", error)  # noqa: TRY400 one line says it all
        return False
    return True


def _drain_on_signals(stop: Callable[..., None], draining: Path, delay_s: float) -> None:
    """
    On SIGTERM, report draining for *delay_s*, then *stop*; SIGINT or a second SIGTERM stop at once.

    Streams without an end see the mark *draining*, and end.
    """

    def end(*_: object) -> None:
        draining.touch()
        stop()

    def drain(*_: object) -> None:
        if not delay_s:
            end()
            return
        signal.signal(signal.SIGTERM, stop)
        draining.touch()
        timer = threading.Timer(delay_s, stop)
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, drain)
    signal.signal(signal.SIGINT, end)
