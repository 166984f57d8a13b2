"""What visits look like: noted by the front and the application, described for the click publisher."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

from app.bootstrap.data_plane import DataPlane
from app.bootstrap.dependencies import utc_now
from app.domain.events import VisitsDescribed
from app.domain.visits import Look
from app.ports import Places, VisitorKeyStore
from app.service.visits import VisitDescriber, VisitNotes, VisitorKeys
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Descriptions:
    """`note` keeps what a visit looks like; `take` describes what was kept; `undescribed` counts the rest."""

    note: Callable[[Look], None]
    take: Callable[[], Awaitable[Sequence[VisitsDescribed]]]
    undescribed: Callable[[], int]


@contextmanager
def _places(settings: Settings) -> Iterator[Places]:
    """Where addresses are, by the operator's file if there is one."""
    from app.adapters.places import MmdbPlaces, NoPlaces

    if settings.geo_file is None:
        yield NoPlaces()
        return
    places = MmdbPlaces(settings.geo_file)
    try:
        yield places
    finally:
        places.close()


@asynccontextmanager
async def open_descriptions(
    settings: Settings, store: VisitorKeyStore, plane: DataPlane | None
) -> AsyncIterator[Descriptions | None]:
    """What one gateway process describes visits with; None if that is off."""
    if settings.analytics == "off":
        yield None
        return
    from app.adapters.user_agents import UserAgents

    notes = VisitNotes()

    def taken() -> Iterable[tuple[Look, int]]:
        noted = notes.take()
        if plane is None:
            return noted
        from app.web.front import looks

        seen, dropped = looks(plane.front)
        notes.dropped += dropped
        return [*noted, *seen]

    with _places(settings) as places:
        describer = VisitDescriber(
            taken,
            VisitorKeys(store, random=secrets.token_bytes),
            UserAgents(),
            places,
            honours_objections=settings.respect_dnt == "on",
            clock=utc_now,
            new_id=partial(secrets.token_hex, 16),
        )
        yield Descriptions(notes.note, describer.take, lambda: notes.dropped)
