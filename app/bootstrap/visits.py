"""What visits look like: noted by the front and the application, described for the click publisher."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

from app.adapters.file_spool import FileSpool
from app.bootstrap.data_plane import DataPlane
from app.concurrency.stopping import close
from app.domain.visits import Look
from app.ports import EventBus, Places, VisitorKeyStore
from app.service.visit_publisher import VisitPublisher
from app.service.visits import VisitDescriber, VisitNotes, VisitorKeys
from app.settings import Settings


@dataclass(frozen=True, slots=True)
class Descriptions:
    """`notes` keep what visits look like that no front answers; `publisher` describes all of them."""

    notes: VisitNotes
    publisher: VisitPublisher

    @property
    def undescribed(self) -> int:
        """How many visits since the start have no description."""
        return self.notes.dropped + self.publisher.undescribed

    @property
    def spooled_bytes(self) -> int:
        """The size of the descriptions on the local disk."""
        return self.publisher.spooled_bytes


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
    settings: Settings, store: VisitorKeyStore, bus: EventBus, plane: DataPlane | None
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

    new_id = partial(secrets.token_hex, 16)
    spool = FileSpool(settings.data_dir / "visits", new_name=new_id)
    try:
        with _places(settings) as places:
            describer = VisitDescriber(
                taken,
                VisitorKeys(store, random=secrets.token_bytes),
                UserAgents(),
                places,
                honours_objections=settings.respect_dnt == "on",
                monotonic=time.monotonic,
                new_id=new_id,
            )
            yield Descriptions(notes, VisitPublisher(describer, bus, spool))
    finally:
        await close("visit spool", spool.aclose())
