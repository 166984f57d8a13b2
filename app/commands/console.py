"""What every command shares: its settings, its store, one line for an error, JSON for programs."""

from __future__ import annotations

import asyncio
import errno
import io
import sys
from collections.abc import Coroutine
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TextIO, TypeVar

import typer

from app.interchange.inert import terminal_safe

if TYPE_CHECKING:
    from app.settings import Settings

T = TypeVar("T")

_store: ContextVar[str] = ContextVar("store", default="")
# What that is: a store, or a gateway.
_kind: ContextVar[str] = ContextVar("kind", default="store")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(message: str = "") -> None:
    r"""
    Print a result; characters that the locale of the terminal lacks are escapes such as `\u2192`.

    Raises:
        OSError: standard output is closed, or cannot be written.
    """
    print_store()
    shown = _inert(message).encode(encoding(), "backslashreplace")
    print(shown.decode(encoding()), file=_output(), flush=True)


def encoding() -> str:
    """Return that of standard output. Raises OSError: it is closed."""
    return _output().encoding or "utf-8"


def say_file(content: str) -> None:
    """Print *content* of a file, as `say` does: see `file_output`."""
    print_store()
    print(_inert(content), file=file_output(), flush=True)


def file_output() -> TextIO:
    """
    Return standard output for the content of a file, in UTF-8 whatever the locale is, unless to a terminal.

    Raises:
        OSError: standard output is closed.
    """
    out = _output()
    if isinstance(out, io.TextIOWrapper):
        if out.isatty():
            out.reconfigure(errors="backslashreplace")
        else:
            out.reconfigure(encoding="utf-8", errors="strict")
    return out


def _output() -> TextIO:
    # Python has none for a file that is closed at its start, and `print` then does nothing.
    out: TextIO | None = sys.stdout
    if out is None:
        raise OSError(errno.EBADF, "standard output is closed")
    return out


def note(message: str) -> None:
    """Print what is not part of the result, beside it."""
    print(f"hopgate: {_inert(message)}", file=sys.stderr, flush=True)


def _inert(message: str) -> str:
    """Escape what a terminal would obey: a message may quote arguments, settings, servers and links."""
    return "\n".join(map(terminal_safe, message.split("\n")))


def fail(message: str, *, names_store: bool = True) -> NoReturn:
    """End the command with one line, which *names_store* unless the store plays no part in it."""
    store = _store.get()
    is_named = not (store and names_store) or message.startswith("no database in ") or store in message
    note(message if is_named else f"{message} ({_kind.get()}: {store})")
    raise SystemExit(1)


def use_store(settings: Settings) -> None:
    """Let the first result, or the error, name the store of *settings*."""
    _store.set(settings.store_name)
    _kind.set("store")


def use_gateway(url: str) -> None:
    """
    Let the first result, or the error, name the gateway that the command works on.

    Raises:
        OSError: as `settings` does.
    """
    _output()
    _store.set(url)
    _kind.set("gateway")


def print_store() -> None:
    """Print which store, or gateway, was used, once."""
    store = _store.get()
    if store:
        _store.set("")
        note(f"using {store}")


def agrees(question: str) -> bool:
    """Ask on the terminal; without one, or at the end of its input, the answer is no."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        return False


def show(document: Any) -> None:
    """Print *document* as JSON; what a terminal would obey, or its locale lacks, is escaped."""
    import msgspec

    from app.interchange.inert import json_safe

    say(json_safe(msgspec.json.format(msgspec.json.encode(document)).decode(), encoding()))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run *work*. Drivers log each attempt to connect; the command prints the outcome."""
    import logging

    from app.concurrency.actors import CLI, acting_as

    logging.getLogger().addHandler(logging.NullHandler())
    with acting_as(CLI):
        return asyncio.run(work)


def settings() -> Settings:
    """
    Return the settings; what is printed names their store.

    Without a base URL, short URLs start with the address of the gateway that serves from the data
    folder.

    Raises:
        SettingsError: they describe no service, or another store than that of the running gateway.
        OSError: standard output is closed. What the command did could not be told, such as a new key.
    """
    from app import settings as environment
    from app.commands import running

    _output()
    found = running.found(environment.load())
    use_store(found)
    return found


def existing_store() -> Settings:
    """
    Return the settings of a store that exists; what is printed names it.

    Raises:
        SettingsError: as `settings` does.
        NoDatabase: there is none; only `hopgate serve` and `hopgate migrate` make one.
    """
    from app.commands import running

    found = settings()
    running.require_database(found)
    return found


def time(text: str | None) -> datetime | None:
    """Return the time that an option names."""
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        fail(f"{text!r} is not a time such as 2030-01-31T12:00:00Z")
