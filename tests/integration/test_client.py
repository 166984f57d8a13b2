"""The client package, sync and async, with a real gateway."""

from __future__ import annotations

import itertools
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hopgate_client
import httpx
import pytest
from hopgate_client import errors

from tests.integration.api_calls import fresh_slug
from tests.integration.client_calls import Clients
from tests.servers.hopgate import eventually, make_key

PACKAGE = Path(__file__).parents[2] / "app" / "client"
TARGET = "https://example.com/page"
_hosts = (f"host-{n}.example" for n in itertools.count())


@pytest.fixture(scope="module", params=["sync", "async"])
def clients(request):
    made = Clients(is_async=request.param == "async")
    yield made
    made.close()


@pytest.fixture(scope="module")
def hopgate(clients, embedded, admin_key):
    return clients(embedded.url, admin_key)


def test_link_from_create_to_undo(hopgate):
    slug = fresh_slug()
    expires_at = datetime(2100, 1, 1, tzinfo=UTC)
    made = hopgate.links.create(TARGET, slug=slug, tags=["a", "b"], expires_at=expires_at, title="ä")

    assert (made.slug, made.long_url, made.tags, made.title) == (slug, TARGET, ("a", "b"), "ä")
    assert (made.expires_at, made.version, made.short_url) == (expires_at, 1, f"http://hop.example/{slug}")
    assert hopgate.links.get(slug) == made
    changed = hopgate.links.change(slug, long_url="https://example.com/2", expires_at=None, if_version=1)
    assert (changed.version, changed.long_url, changed.expires_at) == (2, "https://example.com/2", None)
    hopgate.links.remove(slug, if_version=2)
    with pytest.raises(errors.Gone) as gone:
        hopgate.links.get(slug)
    assert (gone.value.status, gone.value.code) == (410, "gone")
    history = hopgate.links.history(slug)
    assert [one.action for one in history.changes] == ["remove", "edit"]
    assert history.changes[1].before["long_url"] == TARGET
    assert history.removed
    assert hopgate.links.undo(slug, if_version=3).long_url == "https://example.com/2"
    assert hopgate.links.undo(slug) is None


def test_every_field_of_a_link_is_sent_and_read(clients, embedded, hopgate):
    utm = {f"utm_{name}": name for name in ("source", "medium", "campaign", "term", "content")}
    wanted = {
        **utm,
        "expired_url": f"{TARGET}/over",
        "robots": "noindex",
        "forward_query": True,
        "analytics": False,
    }

    made = hopgate.links.create(TARGET, **wanted, override_query=True)

    assert {name: getattr(made, name) for name in wanted} == wanted
    assert made.override_query
    assert made.owner == hopgate.me().key_id
    other = hopgate.keys.create("other", ["links:write"], own_links=True)
    changed = hopgate.links.change(
        made.slug, owner=other.key_id, utm_term=None, expired_url=None, robots=None, override_query=False
    )
    assert (changed.owner, changed.utm_term, changed.utm_source) == (other.key_id, None, "source")
    assert (changed.expired_url, changed.robots, changed.override_query) == (None, None, False)
    assert [one.slug for one in hopgate.links.list(owner=other.key_id)] == [made.slug]
    assert hopgate.links.change(made.slug, owner=None).owner is None


def test_stats_count_visits(hopgate, visitor):
    slug = hopgate.links.create(TARGET).slug
    visitor.get(f"/{slug}", headers={"User-Agent": "curl/8.5.0"})
    since = datetime.now(UTC) - timedelta(hours=3)

    eventually(lambda: hopgate.links.stats(slug, since=since).visits.bots, what="the visit counts")
    stats = hopgate.links.stats(slug, since=since)

    assert (stats.slug, len(stats.hours)) == (slug, 4)
    assert stats.until > stats.since
    assert stats.visits.people == 0
    assert [one.visits for one in stats.visits.bot] == [1]
    assert "visits,,bots,1\n" in hopgate.links.stats_csv(slug, since=since)
    assert hopgate.stats_csv(since=since, interval="day").startswith("section,start,value,visits\n")
    assert [one.value for one in hopgate.links.stats(slug, since=since, top=1).visits.bot] == ["curl"]
    whole = hopgate.stats(since=since, top=250)
    assert (whole.since, whole.until) == (stats.since, stats.until)
    assert whole.visits.bots >= 1


def test_key_that_may_not_read_is_answered_nothing(clients, embedded, hopgate):
    writer = clients(embedded.url, make_key(embedded.settings, "links:write"))
    made = writer.links.create(TARGET)

    assert writer.links.change(made.slug, title="x") is None
    assert hopgate.links.get(made.slug).title == "x"
    with pytest.raises(errors.Forbidden):
        writer.links.get(made.slug)


def test_each_problem_is_an_error_of_its_own(clients, embedded, hopgate):
    slug = hopgate.links.create(TARGET, external_id=fresh_slug()).slug

    with pytest.raises(errors.InvalidRequest) as invalid:
        hopgate.links.create("nowhere", tags=[""])
    assert {one.field for one in invalid.value.errors} == {"long_url", "tags"}
    assert "long_url: " in str(invalid.value)
    with pytest.raises(errors.Conflict) as taken:
        hopgate.links.create(TARGET, slug=slug)
    assert taken.value.link is not None
    assert (taken.value.code, taken.value.link.slug) == ("slug_taken", slug)
    with pytest.raises(errors.PreconditionFailed) as moved:
        hopgate.links.change(slug, title="x", if_version=7)
    assert moved.value.link is not None
    assert moved.value.link.version == 1
    assert not moved.value.may_have_applied
    with pytest.raises(errors.NotFound):
        hopgate.links.get("never-made")
    with pytest.raises(errors.Unauthorized):
        clients(embedded.url, "hg_wrong").me()


@pytest.mark.parametrize("slug", [".", "..", "a/b", "a?b", "ä", "%2e", "bulk/../x", " "])
def test_text_that_is_no_slug_is_not_found(hopgate, slug):
    """It never becomes another path."""
    with pytest.raises((errors.NotFound, errors.InvalidRequest)):
        hopgate.links.get(slug)


def test_listing_pages_and_filters(hopgate):
    tag = fresh_slug()
    made = [hopgate.links.create(f"{TARGET}/{tag}/{n}", tags=[tag]).slug for n in range(7)]

    assert [one.slug for one in hopgate.links.list(tag=tag, page_size=3)] == made[::-1]
    assert [one.slug for one in hopgate.links.list(tags_all=[tag], sort="created")] == made
    assert [one.slug for one in hopgate.links.list(search=f"{tag}/6")] == made[6:]
    page = hopgate.links.page(tag=tag, limit=2, count=True)
    assert (len(page.links), page.count) == (2, 7)


def test_listing_gives_each_link_once_while_others_come_and_go(hopgate):
    tag = fresh_slug()
    made = [hopgate.links.create(TARGET, tags=[tag]).slug for _ in range(9)]
    listing = hopgate.links.list(tag=tag, page_size=2)

    seen = [next(listing).slug]
    for slug in made[:3]:
        hopgate.links.create(TARGET, tags=[tag])
        hopgate.links.remove(slug)
        seen += [next(listing).slug]
    seen += [one.slug for one in listing]

    assert seen == made[:2:-1]


def test_batches_are_answered_item_by_item(hopgate):
    first, second = fresh_slug(), fresh_slug()

    made = hopgate.links.create_many(
        {"long_url": url, "slug": slug} for url, slug in ((TARGET, first), ("nowhere", second))
    )

    assert [one.status for one in made] == [201, 422]
    assert (made[0].ok, made[0].link.slug) == (True, first)
    assert (made[1].ok, made[1].error.errors[0].field) == (False, "long_url")
    [edited] = hopgate.links.change_many([{"slug": first, "version": 1, "title": "x"}])
    assert edited.link.title == "x"
    assert [one.status for one in hopgate.links.remove_many([first, {"slug": second}])] == [204, 404]


def test_batches_have_any_number_of_items(hopgate):
    made = hopgate.links.create_many({"long_url": TARGET} for _ in range(5003))

    assert [one.status for one in made] == [201] * 5003
    assert len({one.link.slug for one in made}) == 5003


def test_atomic_batch_is_stored_whole_or_not(hopgate):
    slug = fresh_slug()
    with pytest.raises(errors.InvalidRequest) as refused:
        hopgate.links.create_many([{"long_url": TARGET, "slug": slug}, {"long_url": "x"}], atomic=True)
    assert [one["index"] for one in refused.value.problem.items] == [1]
    with pytest.raises(errors.NotFound):
        hopgate.links.get(slug)
    with pytest.raises(ValueError, match="5000"):
        hopgate.links.create_many([{"long_url": TARGET}] * 5001, atomic=True)


def test_upsert_and_reuse(hopgate):
    name = fresh_slug()
    [made] = hopgate.links.create_many([{"long_url": TARGET, "external_id": name}], upsert=True)
    [same] = hopgate.links.create_many([{"long_url": TARGET, "external_id": name, "title": "x"}], upsert=True)
    assert (made.status, same.status, same.link.slug) == (201, 200, made.link.slug)
    url = f"{TARGET}/{name}"
    assert hopgate.links.create(url, reuse=True).slug == hopgate.links.create(url, reuse=True).slug


def test_domains(hopgate):
    host = next(_hosts)
    made = hopgate.domains.add(host, root_url=TARGET)

    assert (made.host, made.root_url, made.is_default) == (host, TARGET, False)
    assert hopgate.domains.change(host, root_url=None, min_slug_length=5).root_url is None
    assert hopgate.domains.get(host).min_slug_length == 5
    wanted = {"slug_length": 9, "multi_segment": True, "unicode": True, "redirect_code": 301}
    changed = hopgate.domains.change(host, **wanted, robots="disallow")
    assert {name: getattr(changed, name) for name in wanted} == wanted
    assert changed.robots == "disallow"
    assert hopgate.domains.change(host, slug_length=None, redirect_code=302).slug_length is None
    assert hopgate.domains.list()[0].is_default
    link = hopgate.links.create(TARGET, domain=host, slug="there-1")
    assert hopgate.links.get("there-1", domain=host) == link
    with pytest.raises(errors.Conflict):
        hopgate.domains.remove(host)
    hopgate.links.remove("there-1", domain=host)
    hopgate.domains.remove(host)
    assert host not in [one.host for one in hopgate.domains.list()]


def test_tags(hopgate):
    old, new = fresh_slug(), fresh_slug()
    hopgate.links.create(TARGET, tags=[old])

    assert (old, 1) in [(one.tag, one.links) for one in hopgate.tags.list(page_size=2)]
    assert (hopgate.tags.rename(old, new).changed, hopgate.tags.remove(new).changed) == (1, 1)


def test_keys(clients, embedded, hopgate):
    made = hopgate.keys.create("reporting", ["links:read"], expires_in="1d")

    assert made.key not in repr(made)
    me = clients(embedded.url, made.key).me()
    assert (me.name, me.scopes, me.key_id) == ("reporting", ("links:read",), made.key_id)
    assert me.limits
    limited = hopgate.keys.create(
        "limited",
        ["links:read"],
        own_links=True,
        domains=["hop.example"],
        allowed_addresses=["203.0.113.0/24"],
        rate_limit="5 per minute",
    )
    assert (limited.own_links, limited.domains) == (True, ("hop.example",))
    assert limited.allowed_addresses == ("203.0.113.0/24",)
    assert limited.rate_limit == "5/min"
    rotated = hopgate.keys.rotate(made.key_id, grace="0")
    assert rotated.key != made.key
    hopgate.keys.revoke(made.key_id)
    assert next(one for one in hopgate.keys.list() if one.key_id == made.key_id).revoked_at is not None


def test_blocks(hopgate):
    host, slug = next(_hosts), fresh_slug()
    added = hopgate.blocks.add(hosts=[host], slugs=[slug])

    assert (added.added, added.present) == (2, 0)
    assert {(one.kind, one.value) for one in hopgate.blocks.list(page_size=1)} >= {
        ("host", host),
        ("slug", slug),
    }
    hopgate.blocks.remove_host(host)
    hopgate.blocks.remove_slug(slug)
    with pytest.raises(errors.NotFound):
        hopgate.blocks.remove_host(host)


def test_invalidate(hopgate):
    slug = hopgate.links.create(TARGET).slug
    done = hopgate.invalidate(slug, "never-made")
    assert (done.invalidated, done.unknown) == (1, ("never-made",))


def test_both_clients_are_generated_from_one():
    """`python app/client/generate.py` writes it."""
    command = [
        sys.executable,
        "-c",
        "import generate; print(repr({str(p): t for p, t in generate.generated().items()}))",
    ]
    done = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, check=True)
    for path, text in eval(done.stdout).items():
        assert Path(path).read_text() == text, path


def test_secrets_are_in_no_text(clients, caplog, embedded, admin_key):
    caplog.set_level("DEBUG")
    client = clients(embedded.url, admin_key)
    client.me()
    with pytest.raises(errors.NotFound) as failed:
        client.links.get("never-made")

    assert admin_key not in repr(client) + repr(failed.value) + caplog.text
    assert embedded.url in repr(client if not clients.is_async else client._of)


@pytest.mark.parametrize(
    "url",
    ["", "go.example", "ftp://go.example", "https://u:geheim@go.example", "https://x/?a", "http://x:99999"],
)
def test_url_that_names_no_gateway_is_refused(clients, url):
    with pytest.raises(ValueError, match="URL") as refused:
        clients(url, "hg_x")
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("key", ["", "geheim\n", "geheim x", "gehéim"])
def test_key_that_no_header_can_hold_is_refused(clients, key):
    with pytest.raises(ValueError, match="API key") as refused:
        clients("https://go.example", key)
    assert "geh" not in str(refused.value)


def test_http_client_of_the_caller_is_used_and_stays_open(embedded, admin_key):
    with httpx.Client(headers={"User-Agent": "mine"}) as http:
        with hopgate_client.Hopgate(embedded.url, admin_key, http=http) as client:
            assert client.me().scopes == ("admin",)
        assert not http.is_closed


def test_exported_names_exist():
    assert all(hasattr(hopgate_client, name) for name in hopgate_client.__all__)
