"""Links for the tests of a `Store`, and the calls that most of them make."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

from app.domain.link import Link, LinkFields, NewLink, Slug
from app.ports import Added, IdempotentRequest, Store
from tests.contract.store_database import Database

NOW = datetime(2030, 1, 31, 12, 34, 56, 123457, tzinfo=UTC)
LATER = NOW + timedelta(microseconds=1)
FIELDS = LinkFields(long_url="https://example.com/")
FULL = LinkFields(
    long_url="https://example.com/a%20b?c=d#e",
    title="Zoë 🦆 漢字 \"quoted\" 'n' \\ back, {brace}",
    tags=("zebra", "Äpfel", "a,b", "", '"', "{x}", "null", "\\", "🦆"),
    redirect_code=308,
    valid_from=datetime(2029, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    expires_at=datetime(2031, 7, 1, 2, 0, 0, 1, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    forward_query=True,
    enabled=False,
    max_visits=2**53 - 1,
    external_id="crm: 漢字 '42'",
    override_query=True,
    expired_url="https://example.org/over?a=b#c",
    robots="noindex, nofollow",
    analytics=False,
)
REQUEST = IdempotentRequest("key-1", "order-7", b"digest")


def new(*slugs: str, fields: LinkFields = FIELDS) -> list[NewLink]:
    return [NewLink(slug=Slug(slug), fields=fields) for slug in slugs]


async def added(store: Store, *slugs: str, fields: LinkFields = FIELDS) -> list[Link]:
    answer = await store.add(new(*slugs, fields=fields), now=NOW)
    assert isinstance(answer, Added)
    assert None not in answer.links
    return [link for link in answer.links if link is not None]


async def changes(store: Store, database: Database) -> Counter[tuple[str, int]]:
    """Return every change in the outbox."""
    database.make_events_due()
    events = await store.take_events(limit=10_000, lease_s=60)
    return Counter((event.change.slug, event.change.version) for event in events)
