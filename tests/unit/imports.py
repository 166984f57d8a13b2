"""Imports in one process, for tests: bytes of a file into a store, and what became of each row."""

from __future__ import annotations

import io
import secrets

from app.interchange.reading import Reading
from app.interchange.records import Refused, domain_check
from app.service.link_import import Done, LinkImport
from tests.conftest import NOW

CHECK = domain_check(())


async def run(target, content, *, updates=False, choice=secrets.choice, check=CHECK, **reading):
    """Import *content*; return what became of each row."""
    data = content.encode() if isinstance(content, str) else content
    links = LinkImport(target, clock=lambda: NOW, choice=choice, own_hosts=(), updates=updates)
    rows = Reading(io.BytesIO(data), check=check, **reading)
    return [result async for batch in links.run(rows) for result in batch]


def told(results):
    """Return each result as its line and outcome, or its line and codes."""
    return [
        (result.row.line, result.outcome.name.lower())
        if isinstance(result, Done)
        else (result.line, *[error.code for error in result.errors])
        for result in results
    ]


async def everything(store):
    """Return each link that is exported, with its spent visits."""
    found, after = [], None
    while True:
        page = await store.export_page(after=after, limit=100)
        found += page.links
        if (after := page.next_after) is None:
            return found


def without_refused(results):
    return [result for result in results if not isinstance(result, Refused)]
