"""Aliases beside what else links have: restricted keys, rules of domains, events, statistics, files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.integration.api_calls import LINKS, problem
from tests.integration.domain_gateway import BASE, TARGET, Serving, serving, slug
from tests.integration.front_gateway import ALONE, FRONT
from tests.servers.hopgate import eventually

Holder = Callable[..., httpx.Client]


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Serving]:
    more = {"HOPGATE_DIALECTS": "yourls,shlink,bitly"}
    yield from serving({**request.param, **more}, tmp_path_factory.mktemp("aliases-and-others"))


@pytest.fixture
def holder(gateway) -> Iterator[Holder]:
    """Makes clients with keys that are restricted."""
    with ExitStack() as stack:

        def make(*scopes: str, **restrictions: object) -> httpx.Client:
            body = {"name": "made", "scopes": scopes or ["links:read", "links:write"], **restrictions}
            answer = gateway.api.post("/api/v1/keys", json=body)
            assert answer.status_code == 201, answer.text
            headers = {"Authorization": f"Bearer {answer.json()['key']}"}
            return stack.enter_context(httpx.Client(base_url=gateway.url, headers=headers))

        yield make


def at(link: dict, path: str = "") -> str:
    return f"{LINKS}/{link['slug']}{path}"


def codes(answer: httpx.Response) -> list[tuple[str, str]]:
    return [(one["field"], one["code"]) for one in problem(answer, 422, "invalid")["errors"]]


# --- restricted keys ---------------------------------------------------------------------


def test_alias_of_a_link_beyond_the_reach_is_none(gateway, holder):
    """Also to an alias at a domain that the key may use."""
    host, name, other = gateway.domain(), slug(), slug()
    link = gateway.link(host, aliases=[{"slug": name, "domain": BASE}, {"slug": other}])
    body = {"long_url": TARGET, "slug": name}
    all_scopes = ("links:read", "links:write", "cache:write")

    for client in (holder(*all_scopes, own_links=True), holder(*all_scopes, domains=[BASE])):
        for answer in (
            client.get(at({"slug": name})),
            client.get(at({"slug": name}, "/stats")),
            client.get(at({"slug": name}, "/history")),
            client.get(at({"slug": name}, "/qr")),
            client.patch(at({"slug": name}), json={"title": "x"}),
            client.delete(at({"slug": name})),
            client.post(at({"slug": name}, "/rename"), json={"slug": slug()}),
            client.post(at({"slug": name}, "/undo"), headers={"Content-Length": "0"}),
        ):
            problem(answer, 404, "not_found")
        [edited] = client.patch(f"{LINKS}/bulk", json={"links": [{"slug": name, "title": "x"}]}).json()[
            "results"
        ]
        assert edited["status"] == 404
        unknown = client.post("/api/v1/cache/invalidate", json={"slugs": [name]}).json()
        assert unknown == {"invalidated": 0, "unknown": [name]}
        taken = client.post(LINKS, json=body)
        assert "link" not in problem(taken, 409, "slug_taken")
        assert link["slug"] not in taken.text
        [made] = client.post(f"{LINKS}/bulk", json={"links": [body]}).json()["results"]
        assert (made["status"], "link" in made["error"]) == (409, False)
        mine = client.post(LINKS, json={"long_url": TARGET}).json()
        taken = client.post(at(mine, "/aliases"), json={"slug": name})
        assert "link" not in problem(taken, 409, "slug_taken")
        assert link["slug"] not in taken.text


def test_own_link_is_found_by_its_aliases(holder):
    client, name = holder(own_links=True), slug()
    link = client.post(LINKS, json={"long_url": TARGET, "aliases": [{"slug": name}]}).json()

    assert client.get(at({"slug": name})).json() == link
    assert problem(client.delete(at({"slug": name})), 409, "is_alias")["link"] == link
    [edited] = client.patch(f"{LINKS}/bulk", json={"links": [{"slug": name, "title": "x"}]}).json()["results"]
    assert (edited["status"], edited["error"]["code"]) == (409, "is_alias")
    assert (
        problem(client.post(LINKS, json={"long_url": TARGET, "slug": name}), 409, "slug_taken")["link"]
        == link
    )


def test_slugs_at_domains_that_the_key_may_not_use(gateway, holder):
    client, host, name = holder(domains=[BASE]), gateway.domain(), slug()
    link = gateway.link()
    elsewhere = {"slug": name, "domain": host}

    for answer in (
        client.post(at(link, "/aliases"), json=elsewhere),
        client.post(at(link, "/rename"), json=elsewhere),
    ):
        assert codes(answer) == [("domain", "domain_forbidden")]
    made = client.post(LINKS, json={"long_url": TARGET, "aliases": [elsewhere]})
    assert codes(made) == [("aliases", "domain_forbidden")]
    assert gateway.api.get(at(link)).json() == link
    # An undo must not give the slug back that another key took away.
    gateway.api.post(at(link, "/aliases"), json=elsewhere)
    gateway.api.delete(at(link, "/aliases"), params={"alias": name, "alias_domain": host})
    undone = client.post(at(link, "/undo"), headers={"Content-Length": "0"})
    assert codes(undone) == [("domain", "domain_forbidden")]


# --- rules of domains --------------------------------------------------------------------


def test_rules_of_the_domain_hold_for_every_slug(gateway):
    wide = gateway.domain(multi_segment=True, unicode=True, min_slug_length=5)
    plain, link = gateway.domain(), gateway.link(wide)
    where = {"domain": wide}

    def add(name: str, host: str) -> httpx.Response:
        return gateway.api.post(at(link, "/aliases"), params=where, json={"slug": name, "domain": host})

    for name in ("shop/first", "größer", "Straße/eins"):
        assert add(name, wide).status_code == 200, name
        problem(add(name, plain), 422, "invalid")
    for reserved in ("shop/aliases", "shop/rename", "api"):
        assert codes(add(reserved, wide)) == [("slug", "slug_reserved")]
    renamed = gateway.api.post(at(link, "/rename"), params=where, json={"slug": "shop/später"})
    assert renamed.json()["slug"] == "shop/später"
    gateway.becomes(wide, "/shop/sp%C3%A4ter", (302, link["long_url"]))
    gateway.becomes(wide, "/shop/first", (302, link["long_url"]))
    again = gateway.api.post(f"{LINKS}/shop%2Fsp%C3%A4ter/rename", params=where, json={"slug": "shop/third"})
    assert again.json()["slug"] == "shop/third"
    removed = gateway.api.delete(f"{LINKS}/shop%2Fthird/aliases", params={**where, "alias": "shop/first"})
    assert removed.status_code == 204, removed.text
    gateway.becomes(wide, "/shop/first", (410, None))


def test_shortest_slug_of_a_domain_is_that_of_aliases(gateway, holder):
    host, client = gateway.domain(min_slug_length=6), holder()
    link = gateway.link(host)

    answer = client.post(at(link, "/aliases"), params={"domain": host}, json={"slug": "short"})

    assert codes(answer) == [("slug", "slug_malformed")]


# --- what a link has besides -------------------------------------------------------------


def test_alias_has_every_field_of_its_link(gateway):
    name = slug()
    link = gateway.link(
        long_url=f"{TARGET}?a=1",
        forward_query=True,
        override_query=True,
        robots="noindex",
        expired_url=f"{TARGET}over",
        max_visits=1,
        aliases=[{"slug": name}],
    )

    answer = gateway.api.get(f"/{name}?a=2", headers={"Host": BASE})

    assert (answer.status_code, answer.headers["location"]) == (302, f"{TARGET}?a=2")
    assert answer.headers["x-robots-tag"] == "noindex"
    for one in (name, link["slug"]):
        gateway.becomes(BASE, f"/{one}", (302, f"{TARGET}over"))
    gateway.api.patch(at(link), json={"enabled": False})
    for one in (name, link["slug"]):
        gateway.becomes(BASE, f"/{one}", (302, f"{TARGET}over"))
    gateway.api.delete(at(link))
    gateway.becomes(BASE, f"/{name}", (410, None))


def test_preview_and_code_of_an_alias(gateway):
    """A preview takes no visit. A code leads to the slug that was asked for, which may be in print."""
    name = slug()
    link = gateway.link(title="An alias has it", max_visits=1, aliases=[{"slug": name}])

    preview = gateway.api.get(f"/{name}+", headers={"Host": BASE})
    assert preview.status_code == 200
    assert "An alias has it" in preview.text
    assert f"{BASE}/{name}" in preview.text
    public = [gateway.api.get(f"/{one}.qr", headers={"Host": BASE}) for one in (name, link["slug"])]
    drawn = [gateway.api.get(at({"slug": one}, "/qr")) for one in (name, link["slug"])]
    assert [answer.status_code for answer in (*public, *drawn)] == [200] * 4
    assert public[0].content == drawn[0].content != drawn[1].content == public[1].content
    assert gateway.visit(BASE, f"/{name}")[0] == 302
    assert gateway.api.get(f"/{name}+", headers={"Host": BASE}).status_code == 410


def test_visits_by_an_alias_are_in_the_statistics_also_after_a_rename(gateway):
    name, new = slug(), slug()
    link = gateway.link(aliases=[{"slug": name}])
    seen = {
        "Host": BASE,
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    }

    def browsers(of: str) -> list[dict]:
        return gateway.api.get(f"{LINKS}/{of}/stats").json()["visits"]["browser"]

    for one in (name, link["slug"]):
        gateway.api.get(f"/{one}", headers=seen)
    expected = [{"value": "Firefox", "visits": 2}]
    eventually(lambda: browsers(name) == expected, 10, "visits of the alias are described")
    gateway.api.post(at(link, "/rename"), json={"slug": new})

    assert browsers(new) == expected
    assert gateway.api.get(f"{LINKS}/{new}/stats").json()["total"] == 2


def test_event_stream_shows_changes_of_slugs(gateway):
    name, new = slug(), slug()
    last = gateway.api.get("/api/v1/links", params={"limit": 1}).status_code
    assert last == 200
    with gateway.api.stream("GET", "/api/v1/events", timeout=20) as stream:
        lines = stream.iter_lines()
        assert next(lines)
        link = gateway.link(title="streamed")
        gateway.api.post(at(link, "/aliases"), json={"slug": name})
        gateway.api.post(at(link, "/rename"), json={"slug": new})
        gateway.api.delete(at({"slug": new}))
        told: list[tuple[str, str, list[str]]] = []
        while len(told) < 4:
            line = next(lines)
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                shown = event["data"]["link"] if "link" in event["data"] else event["data"]
                told.append((event["type"], shown["slug"], [one["slug"] for one in shown["aliases"]]))

    assert told == [
        ("link.created", link["slug"], []),
        ("link.changed", link["slug"], [name]),
        ("link.changed", new, [name, link["slug"]]),
        ("link.removed", new, [name, link["slug"]]),
    ]


def test_files_carry_aliases_over_http(gateway):
    name, host = slug(), gateway.domain()
    title = f"carried-{name}"
    link = gateway.link(title=title, aliases=[{"slug": name}, {"slug": name, "domain": host}])
    rows = [json.loads(text) for text in gateway.api.get("/api/v1/export?format=jsonl").text.splitlines()]
    [row] = [one for one in rows if one.get("title") == title]
    assert row["aliases"] == [name, f"{host}/{name}"]

    moved = {**row, "slug": slug(), "aliases": [slug(), f"{host}/{slug()}"]}
    taken = {**row, "slug": slug()}
    body = "".join(f"{json.dumps(one)}\n" for one in (row, moved, taken))
    answer = gateway.api.post(
        "/api/v1/import", content=body, headers={"Content-Type": "application/x-ndjson"}
    )

    assert answer.status_code == 200, answer.text
    assert "alias_taken" in answer.text
    found = gateway.api.get(at(moved)).json()
    assert [one["slug"] for one in found["aliases"]] == [one.rpartition("/")[2] for one in moved["aliases"]]
    problem(gateway.api.get(at(taken)), 404, "not_found")
    assert gateway.api.get(at(link)).json() == link


def test_listings_and_tags_have_the_link_once(gateway):
    tag = slug()
    link = gateway.link(tags=[tag], aliases=[{"slug": slug()}, {"slug": slug()}])

    page = gateway.api.get(LINKS, params={"tag": tag, "count": "true"}).json()

    assert (page["links"], page["count"]) == ([link], 1)
    assert (
        gateway.api.patch("/api/v1/tags", params={"tag": tag}, json={"name": f"{tag}2"}).json()["changed"]
        == 1
    )


# --- dialects ----------------------------------------------------------------------------


def test_dialects_look_links_up_by_an_alias_and_change_none_by_it(gateway):
    name = slug()
    link = gateway.link(aliases=[{"slug": name}])
    key = gateway.api.headers["authorization"].removeprefix("Bearer ")
    headers = {"X-Api-Key": key}

    shlink = gateway.api.get(f"/rest/v3/short-urls/{name}", headers=headers)
    assert (shlink.status_code, shlink.json()["longUrl"]) == (200, link["long_url"])
    for answer in (
        gateway.api.patch(f"/rest/v3/short-urls/{name}", headers=headers, json={"title": "x"}),
        gateway.api.delete(f"/rest/v3/short-urls/{name}", headers=headers),
    ):
        assert answer.status_code == 409, answer.text
    bitly = gateway.api.get(f"/v4/bitlinks/{BASE}/{name}")
    assert (bitly.status_code, bitly.json()["long_url"]) == (200, link["long_url"])
    changed = gateway.api.patch(f"/v4/bitlinks/{BASE}/{name}", json={"title": "x"})
    assert changed.status_code == 409, changed.text
    yourls = gateway.api.get(
        "/yourls-api.php", params={"signature": key, "action": "expand", "shorturl": name, "format": "json"}
    )
    assert yourls.json()["longurl"] == link["long_url"]
    assert gateway.api.get(at(link)).json() == link
