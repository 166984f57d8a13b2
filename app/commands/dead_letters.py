"""What `hopgate dlq` does with dead letters: reads, replays and drops them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import assert_never

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.adapters.rabbitmq.dead_letters import DeadLetter, DeadLetters
from app.domain.errors import HopgateError
from app.domain.events import ClicksCounted, LinkChanged, LinksMissed, VisitsDescribed, WorkQueue
from app.settings import Settings

_BATCH = 100


class NoDeadLetters(HopgateError):
    """Embedded mode has no broker, so no dead letters to list."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One dead letter, for people."""

    queue: str
    event: str
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The oldest dead letters of each work queue, and the number of all."""

    letters: Sequence[Listed]
    depth: int


async def listed(settings: Settings, limit: int) -> Listing:
    """
    Return up to *limit* dead letters of each work queue, oldest first.

    Raises:
        Unavailable: RabbitMQ failed.
    """
    depth, letters = 0, list[Listed]()
    for queue in WorkQueue:
        async with _opened(settings, queue) as dead:
            letters += [
                Listed(queue, _described(letter), letter.attempts, letter.reason)
                async for letter in dead.read(limit)
            ]
            depth += dead.depth
    return Listing(letters, depth)


async def replay(settings: Settings, limit: int | None) -> tuple[int, int]:
    """
    Publish dead letters to their work queues; return how many, and how many stay as unreadable.

    Raises:
        Unavailable: RabbitMQ failed; letters that were not confirmed are still dead letters.
    """
    replayed = unreadable = 0
    for queue in WorkQueue:
        left = None if limit is None else limit - replayed - unreadable
        async with _opened(settings, queue) as dead:
            async for batch in _batches(dead, "replaying", left):
                readable = [letter for letter in batch if letter.event is not None]
                await dead.replay(readable)
                replayed += len(readable)
                unreadable += len(batch) - len(readable)
    return replayed, unreadable


async def drop(settings: Settings, *, unreadable_only: bool) -> int:
    """
    Delete dead letters; return how many.

    Raises:
        Unavailable: RabbitMQ failed; some may have been deleted.
    """
    dropped = 0
    for queue in WorkQueue:
        async with _opened(settings, queue) as dead:
            async for batch in _batches(dead, "dropping", None):
                chosen = [letter for letter in batch if letter.event is None or not unreadable_only]
                await dead.drop(chosen)
                dropped += len(chosen)
    return dropped


def _opened(settings: Settings, queue: str) -> AbstractAsyncContextManager[DeadLetters]:
    if settings.amqp_url is None:
        raise NoDeadLetters("an embedded gateway keeps its dead letters in its own process")
    return DeadLetters.open(settings.amqp_url.get_secret_value(), queue)


async def _batches(dead: DeadLetters, activity: str, limit: int | None) -> AsyncIterator[list[DeadLetter]]:
    total = dead.depth if limit is None else min(limit, dead.depth)
    columns = (TextColumn(activity), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=total == 0 or not console.is_terminal) as progress:
        bar = progress.add_task(activity, total=total)
        batch: list[DeadLetter] = []
        async for letter in dead.read(total):
            batch.append(letter)
            if len(batch) == _BATCH:
                yield batch
                progress.advance(bar, len(batch))
                batch = []
        if batch:
            yield batch
            progress.advance(bar, len(batch))


def _described(letter: DeadLetter) -> str:
    match letter.event:
        case None:
            return "(unreadable)"
        case LinkChanged(slug, version):
            return f"{slug} v{version}"
        case ClicksCounted(clicks=clicks):
            return f"{sum(clicks.values())} clicks of {len(clicks)} links"
        case VisitsDescribed(visits=visits):
            return f"what visits of {len(visits)} links looked like"
        case LinksMissed(slugs):
            return f"{slugs[0]}" + (f" and {len(slugs) - 1} more" if len(slugs) > 1 else "")
        case event:
            assert_never(event)
