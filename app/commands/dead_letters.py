"""`hopgate dlq`: what was given up, and sending it back to work."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.adapters.dead_letters_rabbitmq import DeadLetter, DeadLetters
from app.domain.errors import HopgateError
from app.domain.events import ClicksCounted, LinkChanged
from app.settings import Settings
from app.wire import WORK_QUEUES

_BATCH = 100


class NoDeadLetters(HopgateError):
    """There is no broker that could keep any."""


async def show(settings: Settings, limit: int, say: Callable[[str], None]) -> None:
    """Print up to *limit* letters of each work queue, oldest first, and how many there are."""
    depth = 0
    for queue in WORK_QUEUES:
        async with _opened(settings, queue) as letters:
            async for letter in letters.read(limit):
                say(f"{_what(letter):<24} {letter.attempts} attempts  {letter.reason}")
            depth += letters.depth
    say(f"{depth} dead letters" if depth != 1 else "1 dead letter")


async def replay(settings: Settings, limit: int | None) -> tuple[int, int]:
    """
    Give the letters to the workers again; return how many, and how many were left as unreadable.

    Raises:
        Unavailable: the broker went away; what was not confirmed is still a dead letter.
    """
    replayed = unreadable = 0
    for queue in WORK_QUEUES:
        left = None if limit is None else limit - replayed - unreadable
        async with _opened(settings, queue) as letters:
            async for batch in _batches(letters, "replaying", left):
                readable = [letter for letter in batch if letter.event is not None]
                await letters.replay(readable)
                replayed += len(readable)
                unreadable += len(batch) - len(readable)
    return replayed, unreadable


async def drop(settings: Settings, *, unreadable_only: bool) -> int:
    """
    Forget the letters; return how many.

    Raises:
        Unavailable: the broker went away; some may be forgotten.
    """
    dropped = 0
    for queue in WORK_QUEUES:
        async with _opened(settings, queue) as letters:
            async for batch in _batches(letters, "dropping", None):
                chosen = [letter for letter in batch if letter.event is None or not unreadable_only]
                await letters.drop(chosen)
                dropped += len(chosen)
    return dropped


def _opened(settings: Settings, queue: str) -> AbstractAsyncContextManager[DeadLetters]:
    if settings.amqp_url is None:
        raise NoDeadLetters("an embedded gateway keeps its dead letters in its own process")
    # What the library would say on standard error is in the one line that follows.
    logging.getLogger("aiormq").addHandler(logging.NullHandler())
    return DeadLetters.open(settings.amqp_url.get_secret_value(), queue)


async def _batches(letters: DeadLetters, what: str, limit: int | None) -> AsyncIterator[list[DeadLetter]]:
    total = letters.depth if limit is None else min(limit, letters.depth)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=total == 0) as progress:
        bar = progress.add_task(what, total=total)
        batch: list[DeadLetter] = []
        async for letter in letters.read(total):
            batch.append(letter)
            if len(batch) == _BATCH:
                yield batch
                progress.advance(bar, len(batch))
                batch = []
        if batch:
            yield batch
            progress.advance(bar, len(batch))


def _what(letter: DeadLetter) -> str:
    if letter.event is None:
        return "(unreadable)"
    if isinstance(letter.event, LinkChanged):
        return f"{letter.event.slug} v{letter.event.version}"
    if isinstance(letter.event, ClicksCounted):
        return f"{sum(letter.event.clicks.values())} clicks of {len(letter.event.clicks)} links"
    slugs = letter.event.slugs
    return f"{slugs[0]}" + (f" and {len(slugs) - 1} more" if len(slugs) > 1 else "")
