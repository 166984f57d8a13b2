"""Random links that obey the rules, for tests of files."""

from __future__ import annotations

from dataclasses import fields as columns
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from app.domain import rules, slug, target
from app.domain.errors import InvalidInput
from app.domain.link import MAX_MAX_VISITS, REDIRECT_CODES, Link, LinkFields, Slug


def _is_free(text: str) -> bool:
    try:
        slug.parse(text)
    except InvalidInput:
        return False
    return True


SLUGS = st.from_regex(r"[A-Za-z0-9_-]{3,12}", fullmatch=True).filter(_is_free).map(Slug)

_ODD = st.sampled_from(
    ["=", "'", "'=", "''", "+1", "-", "@home", "＝", " ", '"', ",", ";", "|", "[", "\\", "#", "é"]
)
_PRINTABLE = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)
TITLES = st.lists(_ODD | _PRINTABLE, max_size=5).map("".join)
TAGS = st.lists(TITLES.filter(bool), max_size=4, unique=True).map(tuple)

_PATHS = st.text(st.sampled_from("abc/?=&,;|#%20'+-@()"), max_size=20) | st.lists(
    st.sampled_from(
        ["?", "&", "#", "utm_source=", "utm%5Fsource=a+b", "utm_term=%20'=", "utm_term=%0A", "utm_id=1", "b"]
    ),
    max_size=8,
).map("".join)
LONG_URLS = _PATHS.map(lambda path: target.canonical(f"https://example.com/{path}", own_hosts=()))

_MOMENTS = st.integers(946_684_800_000_000, 253_370_764_799_999_999).map(
    lambda microseconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
_BY_NAME = {
    "long_url": LONG_URLS,
    "title": TITLES,
    "tags": TAGS,
    "redirect_code": st.sampled_from(REDIRECT_CODES),
    "valid_from": st.none() | _MOMENTS,
    "expires_at": st.none() | _MOMENTS,
    "forward_query": st.booleans(),
    "enabled": st.booleans(),
    "max_visits": st.none() | st.integers(1, MAX_MAX_VISITS),
    "external_id": st.none() | TITLES.filter(bool).map(lambda text: text[:255]),
    "override_query": st.booleans(),
    "expired_url": st.none() | LONG_URLS,
    "robots": st.none() | st.lists(st.sampled_from(rules.ROBOTS), min_size=1, unique=True).map(", ".join),
    "analytics": st.booleans(),
}


def _obeys(fields: LinkFields) -> bool:
    try:
        return rules.checked(fields, own_hosts=()) == fields
    except InvalidInput:
        return False


# A field that is added to LinkFields must be added here.
FIELDS = st.builds(
    LinkFields, **{column.name: _BY_NAME[column.name] for column in columns(LinkFields)}
).filter(_obeys)
COUNTS = st.integers(0, MAX_MAX_VISITS)
LINKS = st.builds(
    Link,
    slug=SLUGS,
    fields=FIELDS,
    version=st.integers(1, 2**53 - 1),
    created_at=_MOMENTS,
    updated_at=_MOMENTS,
    removed_at=st.none(),
    visits=COUNTS,
)
