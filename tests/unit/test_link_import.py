"""Imports into a store: what becomes of each row, once and again."""

from __future__ import annotations

import io
import itertools
from secrets import choice

import pytest

from app.domain.errors import Unavailable
from app.domain.link import LinkFields, NewLink, Slug
from app.interchange.reading import Reading
from app.interchange.records import domain_check
from app.service.link_import import LinkImport
from app.service.rehearsal import Rehearsal
from tests.conftest import NOW
from tests.unit.imports import CHECK, everything, run, told
from tests.unit.services import FIELDS


async def targets(store):
    return {link.slug: link.fields.long_url for link, _ in await everything(store)}


async def test_row_brings_its_past(embedded_store):
    text = "keyword,url,title,timestamp,clicks\nspring,https://example.com/,S,2020-01-02 03:04:05,17\n"

    [result] = await run(embedded_store, text)

    link = result.link
    assert (link.slug, link.visits, link.created_at.isoformat()) == (
        "spring",
        17,
        "2020-01-02T03:04:05+00:00",
    )
    assert await embedded_store.get(Slug("spring")) == link


async def test_row_without_time_is_made_now(embedded_store):
    [result] = await run(embedded_store, "https://example.com/\n")

    assert (result.link.created_at, result.link.visits) == (NOW, 0)


async def test_limit_of_another_shortener_counts_its_clicks(embedded_store):
    """No visit is given twice: what was clicked there is spent here."""
    text = "longUrl,shortCode,maxVisits,visits\nhttps://example.com/,few-1,10,4\n"

    await run(embedded_store, text)

    assert [spent for _, spent in await everything(embedded_store)] == [4]


async def test_refused_row_stores_nothing_and_stops_nothing(embedded_store):
    text = (
        "slug,long_url,password\none-1,https://example.com/1,\ntwo-2,https://example.com/2,secret\n"
        'thr-3,https://example.com/3\nfou-4,"https://example.com/4\nfiv-5,https://example.com/5,\n'
    )

    assert told(await run(embedded_store, text)) == [
        (2, "imported"),
        (3, "column_restricts"),
        (4, "cells_too_few"),
        (5, "quote_unclosed"),
    ]
    assert await targets(embedded_store) == {"one-1": "https://example.com/1"}


async def test_rows_are_read_batch_by_batch(embedded_store):
    """A file of any length takes the memory of a batch."""
    read = []

    def rows():
        for row in Reading(io.BytesIO(b"https://example.com/\n" * 2000), check=CHECK):
            read.append(row)
            yield row

    links = LinkImport(embedded_store, clock=lambda: NOW, choice=choice, own_hosts=(), updates=False)
    seen = [len(read) async for _ in links.run(rows())]

    assert seen == [500, 1000, 1500, 2000]


async def test_own_host_and_reserved_slugs_are_refused(embedded_store):
    check = domain_check(frozenset({"hop.example"}))
    text = "slug,long_url\none-1,https://hop.example/x\napi,https://example.com/\n"

    assert told(await run(embedded_store, text, check=check)) == [(2, "url_own_host"), (3, "slug_reserved")]


# --- again -----------------------------------------------------------------------------

LIST = "https://example.com/1\nhttps://example.com/2\nhttps://example.com/1\n"
TABLE = "slug,long_url,title\none-1,https://example.com/1,One\ntwo-2,https://example.com/2,\n"


@pytest.mark.parametrize(
    ("text", "more"),
    [
        (LIST, "https://example.com/1\nhttps://example.com/3\n"),
        (TABLE, "thr-3,https://example.com/3,\nfou-4,https://example.com/1,One\n"),
        (
            "long_url,title\nhttps://example.com/1,x\nhttps://example.com/1,y\n",
            "https://example.com/1,x\nhttps://example.com/1,z\n",
        ),
    ],
)
async def test_file_that_grew_imports_what_is_new(embedded_store, text, more):
    """The same line twice is two links; a line that was there is the link that it was."""
    first = await run(embedded_store, text)

    again = await run(embedded_store, text + more)

    assert {outcome for _, outcome in told(first)} == {"imported"}
    assert [outcome for _, outcome in told(again)] == ["same"] * len(first) + ["imported"] * 2
    assert [result.link for result in again[: len(first)]] == [result.link for result in first]
    assert len(await everything(embedded_store)) == len(first) + 2


async def test_lines_in_another_order_are_known(embedded_store):
    await run(embedded_store, LIST)

    again = await run(embedded_store, "".join(reversed(LIST.splitlines(keepends=True))))

    assert {outcome for _, outcome in told(again)} == {"same"}


async def test_later_export_of_links_without_slug_is_known(embedded_store):
    """Their clicks went on, which makes no other link of them."""
    await run(embedded_store, "url,created,clicks\nhttps://example.com/1,2020-01-01T00:00:00Z,5\n")

    again = await run(embedded_store, "url,created,clicks\nhttps://example.com/1,2020-01-01T00:00:00Z,9\n")

    assert told(again) == [(2, "same")]


async def test_link_without_slug_is_not_made_anew_after_its_removal(embedded_store):
    [first] = await run(embedded_store, "https://example.com/1\n")
    await embedded_store.remove(first.link.slug, expected_version=None, now=NOW)

    assert told(await run(embedded_store, "https://example.com/1\n")) == [(1, "same")]


async def test_interrupted_import_goes_on(embedded_store, store):
    """The store goes away after the first batch; the second run stores the rest."""
    text = "".join(f"https://example.com/{n}\n" for n in range(1200))
    real = store.__getattr__
    calls = itertools.count()

    class Failing:
        def __getattr__(self, name):
            async def call(*args, **kwargs):
                if name == "add_imported" and next(calls) == 1:
                    raise Unavailable("store", "away")
                return await real(name)(*args, **kwargs)

            return call

    with pytest.raises(Unavailable):
        await run(Failing(), text)
    stored = len(await everything(embedded_store))

    again = [outcome for _, outcome in told(await run(embedded_store, text))]

    assert 0 < stored < 1200
    assert again == ["same"] * stored + ["imported"] * (1200 - stored)


# --- slugs that are taken --------------------------------------------------------------


async def test_taken_slugs_are_refused_with_their_reason(embedded_store, links):
    await links.create(FIELDS, custom_slug="other")
    await links.create(FIELDS, custom_slug="equal")
    await links.create(FIELDS, custom_slug="titled")
    await links.create(FIELDS, custom_slug="removed")
    await links.remove(Slug("removed"))
    before = await everything(embedded_store)
    text = (
        "slug,long_url,title\nother,https://example.com/other,\nequal,https://example.com/,\n"
        "titled,https://example.com/,Title\nremoved,https://example.com/,\n"
        "twice,https://example.com/1,\ntwice,https://example.com/2,\ntwice,https://example.com/1,\n"
    )

    assert told(await run(embedded_store, text)) == [
        (2, "slug_taken"),
        (3, "same"),
        (4, "slug_differs"),
        (5, "slug_removed"),
        (6, "imported"),
        (7, "slug_taken"),
        (8, "same"),
    ]
    assert (await everything(embedded_store))[:-1] == before


async def test_fields_that_a_file_does_not_name_make_no_difference(embedded_store):
    await run(embedded_store, "slug,long_url,title,tags\none-1,https://example.com/,Title,a\n")

    assert told(await run(embedded_store, "slug,long_url\none-1,https://example.com/\n")) == [(2, "same")]


async def test_update_changes_what_the_file_names(embedded_store):
    await run(embedded_store, "slug,long_url,title,tags\none-1,https://example.com/,Title,a\n")
    text = "slug,long_url,title\none-1,https://example.com/new,\none-1,https://example.com/newer,\n"

    assert told(await run(embedded_store, text, updates=True)) == [(2, "updated"), (3, "updated")]

    link = await embedded_store.get(Slug("one-1"))
    assert (link.fields.long_url, link.fields.title, link.fields.tags, link.version) == (
        "https://example.com/newer",
        "",
        ("a",),
        3,
    )


async def test_update_keeps_what_an_earlier_version_stored(embedded_store):
    """A title that the rules refuse by now: the row says nothing of it."""
    old = LinkFields(long_url="https://example.com/", title="two\nlines")
    await embedded_store.add([NewLink(slug=Slug("old-1"), fields=old)], now=NOW)
    text = "slug,long_url,tags\nold-1,https://example.com/,new\n"

    assert told(await run(embedded_store, text, updates=True)) == [(2, "updated")]

    fields = (await embedded_store.get(Slug("old-1"))).fields
    assert (fields.title, fields.tags) == ("two\nlines", ("new",))


async def test_update_obeys_the_rules_of_the_whole_link(embedded_store):
    """What the file names may not fit what the link has."""
    await run(embedded_store, "slug,long_url,valid_from\none-1,https://example.com/,2030-01-01T00:00:00Z\n")
    text = "slug,long_url,expires_at\none-1,https://example.com/,2029-01-01T00:00:00Z\n"

    assert told(await run(embedded_store, text, updates=True)) == [(2, "never_valid")]


async def test_taken_random_slug_is_drawn_again(embedded_store):
    drawn = iter("aaaaaaa" + "aaaaaaa" + "bbbbbbb")
    await run(embedded_store, "https://example.com/1\n", choice=lambda _: next(drawn))

    await run(embedded_store, "https://example.com/2\n", choice=lambda _: next(drawn))

    assert set(await targets(embedded_store)) == {"aaaaaaa", "bbbbbbb"}


# --- dry runs --------------------------------------------------------------------------


@pytest.fixture
async def scratch(tmp_path):
    from app.adapters.sqlite.store import SqliteStore
    from app.migrations import migrate

    path = tmp_path / "scratch.db"
    migrate(f"sqlite:///{path}")
    store = await SqliteStore.open(path)
    yield store
    await store.aclose()


@pytest.mark.parametrize("updates", [False, True])
async def test_dry_run_tells_what_a_run_does_and_stores_nothing(embedded_store, links, scratch, updates):
    await links.create(FIELDS, custom_slug="there")
    await run(embedded_store, LIST)
    before = await everything(embedded_store)
    text = (
        "long_url,slug,title\nhttps://example.com/1,,\nhttps://example.com/9,,\nhttps://example.com/9,,\n"
        "https://example.com/,there,T\nhttps://example.com/,there,T\nhttps://example.com/,there,U\n"
        "https://example.com/2,new-1,\nhttps://example.com/3,new-1,\nhttps://example.com/2,new-1,\n"
    )
    text += "".join(f"https://example.com/2,new-1,{n % 3 or ''}\n" for n in range(1000))

    dry = await run(Rehearsal(embedded_store, scratch), text, updates=updates)
    after = await everything(embedded_store)
    real = await run(embedded_store, text, updates=updates)

    assert told(dry) == told(real)
    assert after == before
    assert [r.link.fields for r in dry if hasattr(r, "link")] == [
        r.link.fields for r in real if hasattr(r, "link")
    ]


# --- aliases ---------------------------------------------------------------------------

ALIASED = 'slug,long_url,aliases\none-1,https://example.com/1,"[""one-2"",""one-3""]"\n'


async def test_aliases_are_imported_once(embedded_store):
    first = await run(embedded_store, ALIASED)
    again = await run(embedded_store, ALIASED)
    more = await run(embedded_store, ALIASED.replace("one-3", "one-4"))
    as_link = await run(embedded_store, "slug,long_url\none-2,https://example.com/1\n")

    assert [told(one) for one in (first, again, more, as_link)] == [
        [(2, "imported")],
        [(2, "same")],
        [(2, "aliases_differ")],
        [(2, "slug_taken")],
    ]
    link = await embedded_store.get(Slug("one-3"))
    assert link.aliases == ("one-2", "one-3")


async def test_link_whose_alias_is_taken_is_refused(embedded_store):
    text = ALIASED + 'two-1,https://example.com/2,"[""one-1""]"\nthr-1,https://example.com/3,"[""one-2""]"\n'

    assert told(await run(embedded_store, text)) == [
        (2, "imported"),
        (3, "alias_taken"),
        (4, "alias_taken"),
    ]
    assert await embedded_store.get(Slug("two-1")) is None
