"""`DomainStore`: one suite for every adapter."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from app.domain.domains import Domain, DomainSettings, Robots
from app.domain.link import LinkFields, NewLink
from app.domain.link_key import DEFAULT_ID, key_of
from app.ports import Found, LinkQuery, LinkSort, Reusable, Store, Wanted
from tests.contract.store_links import LATER, NOW

HOST = "go.example"
SETTINGS = DomainSettings(
    root_url="https://example.com/",
    not_found_url="https://example.com/404",
    expired_url="https://example.com/gone",
    min_slug_length=5,
    slug_length=9,
    multi_segment=True,
    redirect_code=308,
    robots=Robots.DISALLOW,
)


async def add(store: Store, host: str = HOST, settings: DomainSettings = SETTINGS, **more: bool) -> Domain:
    added = await store.add_domain(host, settings, case_sensitive=more.get("case_sensitive", True), now=NOW)
    assert added is not None
    return added


async def test_new_store_has_the_default_domain(store: Store) -> None:
    [default] = await store.domains()

    assert (default.domain_id, default.host, default.case_sensitive) == (DEFAULT_ID, "", True)
    assert (default.settings, default.removed) == (DomainSettings(), False)
    assert await store.domains_version() == default.version == 1


async def test_domain_is_stored_with_every_setting(store: Store) -> None:
    added = await add(store, case_sensitive=False)

    assert added == Domain(
        domain_id=1,
        host=HOST,
        case_sensitive=False,
        settings=SETTINGS,
        has_segments=True,
        created_at=NOW,
        updated_at=NOW,
        version=2,
    )
    assert (await store.domains())[1:] == [added]
    assert await store.domains_version() == 2


async def test_kinds_of_slugs_that_were_there_stay_known(store: Store) -> None:
    """Links that have them are looked up after the setting has ended."""
    added = await add(store, settings=DomainSettings())
    assert not added.has_segments
    settings, has_segments, version = DomainSettings(), [], added.version
    for allows in (True, False, False):
        changed = await store.change_domain(
            added.domain_id, replace(settings, multi_segment=allows), expected_version=version, now=LATER
        )
        assert changed is not None
        has_segments.append((changed.settings.multi_segment, changed.has_segments))
        version = changed.version

    assert has_segments == [(True, True), (False, True), (False, True)]
    assert await store.remove_domain(added.domain_id, now=LATER)
    assert (await add(store, settings=DomainSettings())).has_segments


async def test_host_is_stored_once(store: Store) -> None:
    added = await add(store)

    assert await store.add_domain(HOST, DomainSettings(), case_sensitive=False, now=LATER) is None
    assert (await store.domains())[1:] == [added]
    assert await store.domains_version() == 2


async def test_change_is_of_one_version(store: Store) -> None:
    added = await add(store)
    wanted = DomainSettings(root_url="https://example.com/other")

    changed = await store.change_domain(added.domain_id, wanted, expected_version=2, now=LATER)
    late = await store.change_domain(added.domain_id, SETTINGS, expected_version=2, now=LATER)

    assert changed is not None
    assert (changed.settings, changed.version, changed.created_at, changed.updated_at) == (
        wanted,
        3,
        NOW,
        LATER,
    )
    assert late is None
    assert (await store.domains())[1:] == [changed]
    absent = await store.change_domain(99, SETTINGS, expected_version=3, now=LATER)
    assert absent is None


async def test_default_domain_can_be_changed_and_not_removed(store: Store) -> None:
    changed = await store.change_domain(DEFAULT_ID, SETTINGS, expected_version=1, now=LATER)

    assert changed is not None
    assert changed.settings == SETTINGS
    assert not await store.remove_domain(DEFAULT_ID, now=LATER)


async def test_removed_domain_is_back_with_its_id(store: Store) -> None:
    added = await add(store, case_sensitive=False)

    assert await store.remove_domain(added.domain_id, now=LATER)
    assert not await store.remove_domain(added.domain_id, now=LATER)
    [_, removed] = await store.domains()
    assert (removed.removed, removed.version) == (True, 3)
    gone = await store.change_domain(added.domain_id, SETTINGS, expected_version=3, now=LATER)
    assert gone is None
    back = await store.add_domain(HOST, DomainSettings(), case_sensitive=True, now=LATER)

    assert back is not None
    assert (back.domain_id, back.case_sensitive) == (added.domain_id, False)
    assert (back.settings, back.removed, back.version) == (DomainSettings(), False, 4)


async def test_changes_at_once_are_numbered(store: Store) -> None:
    hosts = [f"h{n}.example" for n in range(8)]

    added = await asyncio.gather(*(add(store, host) for host in hosts))

    assert sorted(one.version for one in added) == list(range(2, 10))
    assert len({one.domain_id for one in added}) == 8


async def test_links_are_listed_by_domain(store: Store) -> None:
    fields = LinkFields(long_url="https://example.com/")
    keys = [key_of(domain, name) for domain in (0, 1, 2, 10) for name in ("aaa", "bbb", "zzz", "🎉")]
    await store.add([NewLink(slug=key, fields=fields) for key in keys], now=NOW)

    for domain in (0, 1, 2, 3, 10):
        query = LinkQuery(domain=domain, sort=LinkSort.SLUG, descending=False)
        page = await store.find(query, after=None, limit=10, now=LATER)
        wanted = [key_of(domain, name) for name in ("aaa", "bbb", "zzz", "🎉") if domain != 3]
        assert [link.slug for link in page.links] == wanted
        assert await store.count(query, now=LATER, limit_s=10) == len(wanted)
        stored = await store.find(LinkQuery(domain=domain), after=None, limit=2, now=LATER)
        assert [link.slug for link in stored.links] == wanted[:1:-1]


async def test_reusable_link_is_of_the_domain_whatever_its_slug(store: Store) -> None:
    """Keys of the default domain may sort before and after those of all others."""
    fields = LinkFields(long_url="https://example.com/")
    keys = {domain: key_of(domain, "🎉") for domain in (0, 1, 2)}
    await store.add([NewLink(slug=key, fields=fields) for key in keys.values()], now=NOW)
    asked = [Reusable(fields, domain) for domain in (0, 1, 2, 3)]
    found: dict[Reusable, str] = {}

    def decide(known: Found) -> None:
        found.update({one: link.slug for one, link in known.reusable.items()})

    await store.write_batch(Wanted(reusable=asked), decide, now=NOW, request=None)

    assert found == {Reusable(fields, domain): key for domain, key in keys.items()}


async def test_slugs_are_searched_as_people_see_them(store: Store) -> None:
    """In place of what the store calls a link."""
    fields = LinkFields(long_url="https://example.com/")
    key = key_of(7, "spring-sale")
    await store.add([NewLink(slug=key, fields=fields)], now=NOW)

    for term, wanted in (("spring", [key]), ("g-sale", [key]), ("~7~", []), ("~7~spring", [])):
        page = await store.find(LinkQuery(terms=(term,)), after=None, limit=10, now=LATER)
        assert [link.slug for link in page.links] == wanted, term
