"""The sockets of the workers' fronts. The parent process opens and keeps them: they outlive a worker."""

from __future__ import annotations

import logging
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.errors import SettingsError
from app.settings import Settings

log = logging.getLogger(__name__)

# Of the path of a Unix socket, on Linux, with its final zero.
_MAX_PATH = 108


def has_front(settings: Settings) -> bool:
    """
    Return whether workers of `hopgate serve` have a front.

    Raises:
        SettingsError: it cannot be loaded, or this system has no place for it and it was asked for by name.
    """
    if settings.front == "off":
        return False
    try:
        import hopgate_front
    except ImportError as error:
        raise SettingsError(
            f"HOPGATE_FRONT: the front cannot be loaded ({error}): pip install ./pyext/front of this version,"
            " or set HOPGATE_FRONT=off, and redirects take several times the processor time"
        ) from None
    del hopgate_front
    if forks():
        return True
    if "front" in settings.model_fields_set:
        raise SettingsError("HOPGATE_FRONT: only Linux has it; set it to off")
    if settings.tls_cert is not None or settings.proxy_protocol == "on":
        raise SettingsError(
            "HOPGATE_TLS_CERT and HOPGATE_PROXY_PROTOCOL need the front, which only Linux has"
        )
    log.warning("there is no front, which only Linux has: redirects take several times the processor time")
    return False


def forks() -> bool:
    """Let workers be forked, so that they inherit the sockets of their parent; return whether they are."""
    # The default of later versions of Python is another.
    if sys.platform == "linux":
        multiprocessing.set_start_method("fork", force=True)
    return multiprocessing.get_start_method() == "fork"


@dataclass(frozen=True, slots=True)
class FrontSockets:
    """
    How many public sockets each worker has, one for each thread of its front, and where the private ones are.

    `folder` must be for this user alone: the application believes what comes through these sockets.
    """

    threads: int
    folder: Path

    def private(self, worker: int, backlog: int) -> socket.socket:
        """
        Return the socket between front and application of *worker*: only this user can connect to it.

        Raises:
            SettingsError: the path of `folder` is too long for one.
        """
        path = self.folder / f"{worker}.sock"
        if len(os.fsencode(path)) >= _MAX_PATH:
            raise SettingsError(
                f"HOPGATE_FRONT: {path} is too long for a socket (set TMPDIR to a shorter path)"
            )
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        sock.bind(os.fsencode(path))
        path.chmod(0o600)
        # Now, not by the worker: requests of its front wait until granian accepts them.
        sock.listen(backlog)
        return sock

    def load(self, public: Sequence[socket.socket], private: socket.socket, load: Callable[[], Any]) -> Any:
        """Return what *load* returns, in a worker that has these sockets: `app.settings` finds them."""
        os.environ["HOPGATE_FRONT_LISTENERS"] = f"[{', '.join(str(sock.detach()) for sock in public)}]"
        os.environ["HOPGATE_FRONT_SOCKET"] = os.fsdecode(private.getsockname())
        return load()
