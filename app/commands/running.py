"""
How the command line finds a running gateway: a file in the data folder, locked while it serves.

What the file says counts only while it is locked, so a gateway that was killed leaves nothing that
misleads.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Literal

from app.domain.errors import HopgateError, SettingsError
from app.settings import Settings

_FILE = "gateway.lock"
# A command that looks whether the file is locked holds a lock of its own meanwhile.
_PATIENCE_S = 0.5


class DataInUse(HopgateError):
    """Another embedded gateway uses the same data directory."""


class NoDatabase(HopgateError):
    """The data folder holds no database."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """What a gateway says of itself; nothing of it is secret."""

    bind: str
    public_url: str
    store: str
    embedded: bool
    # Of gateways that know of neither, as before.
    proxy_protocol: Literal["on", "off"] = "off"
    tls_cert: str | None = None


def announce(settings: Settings) -> IO[str] | None:
    """
    Lock the file and write this gateway to it.

    Returns:
        The lock: keep it while serving. None if another gateway of a stack has announced itself.

    Raises:
        DataInUse: another embedded gateway holds the lock. Each has a cache of its own, so a second one
            on the same data would serve stale links.
        OSError: the file cannot be written.
    """
    path = settings.data_dir / _FILE
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+", encoding="utf-8")
    # Workers inherit the lock, so it is held until the last of them ends.
    if not _locked(file):
        file.close()
        if not settings.embedded:
            return None
        message = f"another gateway serves from {settings.data_dir} (set HOPGATE_DATA_DIR)"
        raise DataInUse(message)
    os.fchmod(file.fileno(), 0o600)
    file.truncate()
    gateway = Gateway(
        settings.bind,
        settings.public_url,
        settings.store_name,
        settings.embedded,
        settings.proxy_protocol,
        None if settings.tls_cert is None else str(settings.tls_cert),
    )
    json.dump(asdict(gateway), file)
    file.flush()
    return file


@contextmanager
def stopped(settings: Settings) -> Iterator[None]:
    """
    Keep every embedded gateway from serving from the data folder during the body.

    Raises:
        DataInUse: one serves from it.
    """
    path = settings.data_dir / _FILE
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8") as file:
        if not _locked(file):
            raise DataInUse(f"a gateway serves from {settings.data_dir}: stop it first")
        yield


def find(settings: Settings) -> Gateway | None:
    """Return the gateway that serves from the data folder; None if there is none, or it is another user's."""
    try:
        with (settings.data_dir / _FILE).open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return Gateway(**json.load(file))
    except (OSError, ValueError, TypeError):
        pass
    return None


def as_running(settings: Settings) -> Settings:
    """Return *settings* with how to connect to the gateway that serves from the data folder, if one does."""
    gateway = find(settings)
    return settings if gateway is None else settings.model_copy(update=_address(gateway))


def _address(gateway: Gateway) -> dict[str, object]:
    return {
        "bind": gateway.bind,
        "proxy_protocol": gateway.proxy_protocol,
        "tls_cert": None if gateway.tls_cert is None else Path(gateway.tls_cert),
    }


def found(settings: Settings) -> Settings:
    """
    Return *settings* with the address of the gateway that serves from the data folder, if one does.

    Raises:
        SettingsError: that gateway uses another store, so what is written here would not be served.
    """
    gateway = find(settings)
    if gateway is None:
        return settings
    if gateway.embedded != settings.embedded:
        message = (
            f"the gateway that serves from {settings.data_dir} uses {gateway.store}, and this command"
            f" would use {settings.store_name}: give both the same settings"
        )
        raise SettingsError(message)
    address = {**_address(gateway), "base_url": settings.base_url or gateway.public_url}
    return settings.model_copy(update=address)


def require_database(settings: Settings) -> None:
    """
    Check that an embedded store exists.

    Raises:
        NoDatabase: it does not. Making an empty one would look like success.
    """
    if settings.embedded and not settings.sqlite_path.is_file():
        message = (
            f"no database in {settings.data_dir} (set HOPGATE_DATA_DIR);"
            " hopgate serve or hopgate migrate makes one"
        )
        raise NoDatabase(message)


def _locked(file: IO[str]) -> bool:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        else:
            return True
