"""Aliases and other slugs of links, on an embedded gateway with and without the front."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import apsw
import httpx
import pytest

from tests.integration.api_calls import LINKS, problem
from tests.integration.domain_gateway import BASE, TARGET, Serving, serving, slug
from tests.integration.front_gateway import ALONE, FRONT
from tests.servers.hopgate import eventually, hopgate


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Serving]:
    cool_down = {"HOPGATE_SLUG_COOL_DOWN": "30d"}
    yield from serving({**request.param, **cool_down}, tmp_path_factory.mktemp("aliases"))


def at(link: dict, path: str = "") -> str:
    return f"{LINKS}/{link['slug']}{path}"


def add_alias(gateway: Serving, link: dict, name: str, status: int = 200, **more: str) -> dict:
    answer = gateway.api.post(at(link, "/aliases"), json={"slug": name, **more})
    assert answer.status_code == status, answer.text
    return answer.json()


def rename(gateway: Serving, link: dict, name: str, headers: dict[str, str] | None = None, **more: object):
    return gateway.api.post(at(link, "/rename"), json={"slug": name, **more}, headers=headers)


def gone(gateway: Serving, name: str, host: str = BASE) -> bool:
    return gateway.visit(host, f"/{name}")[0] == 410


def test_alias_redirects_as_its_link_does(gateway):
    link, name = gateway.link(), slug()
    assert gateway.visit(BASE, f"/{name}") == (404, None)

    document = add_alias(gateway, link, name)
    again = add_alias(gateway, link, name)

    assert document == again
    assert document["aliases"] == [{"domain": BASE, "slug": name, "short_url": f"https://{BASE}/{name}"}]
    assert document["version"] == 2
    gateway.becomes(BASE, f"/{name}", (302, link["long_url"]))
    gateway.api.patch(at(link), json={"long_url": f"{TARGET}other"})
    gateway.becomes(BASE, f"/{name}", (302, f"{TARGET}other"))
    gateway.api.patch(at(link), json={"enabled": False})
    gateway.becomes(BASE, f"/{name}", (410, None))
    gateway.api.patch(at(link), json={"enabled": True, "expires_at": "2020-01-01T00:00:00Z"})
    gateway.becomes(BASE, f"/{name}", (410, None))


def test_alias_at_another_domain(gateway):
    link, name, host = gateway.link(), slug(), gateway.domain()

    document = add_alias(gateway, link, name, domain=host)

    assert document["aliases"] == [{"domain": host, "slug": name, "short_url": f"https://{host}/{name}"}]
    gateway.becomes(host, f"/{name}", (302, link["long_url"]))
    assert gateway.visit(BASE, f"/{name}")[0] == 404
    removed = gateway.api.delete(at(link, "/aliases"), params={"alias": name, "alias_domain": host})
    assert removed.status_code == 204
    eventually(lambda: gone(gateway, name, host), 30, "the alias is gone")


def test_link_comes_with_aliases(gateway):
    name, other = slug(), slug()
    body = {"aliases": [{"slug": name}, {"slug": other}]}

    link = gateway.link(**body)
    taken = gateway.api.post(LINKS, json={"long_url": TARGET, **body})
    own = gateway.api.post(
        LINKS, json={"long_url": TARGET, "slug": "my-own", "aliases": [{"slug": "my-own"}]}
    )
    reserved = gateway.api.post(LINKS, json={"long_url": TARGET, "aliases": [{"slug": "api"}]})
    many = [{"slug": f"{slug()}-{n}"} for n in range(51)]
    too_many = gateway.api.post(LINKS, json={"long_url": TARGET, "aliases": many})
    reused = gateway.api.post(LINKS, json={"long_url": TARGET, "reuse": True, **body})

    assert [alias["slug"] for alias in link["aliases"]] == [name, other]
    gateway.becomes(BASE, f"/{other}", (302, link["long_url"]))
    assert problem(taken, 409, "slug_taken")["link"]["slug"] == link["slug"]
    assert problem(own, 422, "invalid")["errors"][0]["code"] == "alias_same"
    assert problem(reserved, 422, "invalid")["errors"][0] == {
        "field": "aliases",
        "code": "slug_reserved",
        "message": problem(reserved, 422, "invalid")["errors"][0]["message"],
    }
    assert problem(too_many, 422, "invalid")["errors"][0]["code"] == "aliases_too_many"
    assert problem(reused, 422, "invalid")["errors"][0]["code"] == "reuse_restricted"


def test_slugs_that_no_alias_can_have(gateway):
    link, other, dead = gateway.link(), gateway.link(), gateway.link()
    assert gateway.api.delete(at(dead)).status_code == 204
    gateway.api.post("/api/v1/blocks", json={"slugs": ["blocked-alias"]})

    for name, status, code in (
        (other["slug"], 409, "slug_taken"),
        (dead["slug"], 409, "slug_taken"),
        ("api", 422, "invalid"),
        ("a b", 422, "invalid"),
        (link["slug"], 422, "invalid"),
    ):
        problem(gateway.api.post(at(link, "/aliases"), json={"slug": name}), status, code)
    for name in (other["slug"], dead["slug"]):
        problem(rename(gateway, link, name), 409, "slug_taken")
    for name in ("api", link["slug"]):
        problem(rename(gateway, link, name), 422, "invalid")
    assert gateway.api.get(at(link)).json()["version"] == 1


def test_reads_take_an_alias_and_changes_do_not(gateway):
    link, name = gateway.link(title=f"find {secrets.token_hex(6)}"), slug()
    link = add_alias(gateway, link, name)
    alias = {"slug": name}

    read = gateway.api.get(at(alias))
    assert read.json() == link
    assert read.headers["content-location"] == at(link)
    assert gateway.api.get(at(alias, "/stats")).json()["slug"] == link["slug"]
    assert gateway.api.get(at(alias, "/history")).json()["slug"] == link["slug"]
    found = gateway.api.get(LINKS, params={"search": name}).json()["links"]
    assert found == [link]
    for answer in (
        gateway.api.patch(at(alias), json={"title": "x"}),
        gateway.api.delete(at(alias)),
        gateway.api.post(at(alias, "/undo"), headers={"Content-Length": "0"}),
        rename(gateway, alias, slug()),
        gateway.api.post(at(alias, "/aliases"), json={"slug": slug()}),
    ):
        assert problem(answer, 409, "is_alias")["link"] == link
    edited = gateway.api.patch(f"{LINKS}/bulk", json={"links": [{"slug": name, "title": "x"}]}).json()
    removed = gateway.api.request("DELETE", f"{LINKS}/bulk", json={"links": [name]}).json()
    assert [one["results"][0]["status"] for one in (edited, removed)] == [409, 409]
    assert gateway.api.get(at(link)).json() == link


def test_invalidation_of_an_alias_is_one_of_its_link(gateway):
    link, name = gateway.link(), slug()
    add_alias(gateway, link, name)
    gateway.becomes(BASE, f"/{name}", (302, link["long_url"]))

    answer = gateway.api.post("/api/v1/cache/invalidate", json={"slugs": [name, "unknown-one"]})

    assert answer.json() == {"invalidated": 1, "unknown": ["unknown-one"]}
    assert gateway.api.get(at(link)).json()["version"] == 3
    assert gateway.visit(BASE, f"/{name}") == (302, link["long_url"])


def test_blocks_hold_for_each_slug(gateway):
    link, name = gateway.link(), slug()
    add_alias(gateway, link, name)
    gateway.becomes(BASE, f"/{name}", (302, link["long_url"]))

    gateway.api.post("/api/v1/blocks", json={"slugs": [name]})

    eventually(lambda: gateway.visit(BASE, f"/{name}")[0] == 451, 30, "the alias is blocked")
    assert gateway.visit(BASE, f"/{link['slug']}")[0] == 302


def test_visits_of_all_slugs_are_counted_and_spent_as_one(gateway):
    """Of one process, exactly and in a row, whichever slug is visited."""
    name, other = slug(), slug()
    link = gateway.link(max_visits=30, aliases=[{"slug": name}, {"slug": other}])
    names = (name, link["slug"], other)

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda n: gateway.visit(BASE, f"/{names[n % 3]}")[0], range(60)))

    assert sorted(statuses) == [302] * 30 + [410] * 30
    visits = lambda: gateway.api.get(at(link)).json()["visits"]  # noqa: E731
    eventually(lambda: visits() == 30, 10, "visits of aliases are counted for the link")
    assert sum(hour["clicks"] for hour in gateway.api.get(at(link, "/stats")).json()["hours"]) == 30


def test_removed_link_takes_its_aliases_along_and_an_undo_brings_them_back(gateway):
    link, name = gateway.link(), slug()
    add_alias(gateway, link, name)
    gateway.becomes(BASE, f"/{name}", (302, link["long_url"]))

    assert gateway.api.delete(at(link)).status_code == 204
    statuses = [gateway.visit(BASE, f"/{one}")[0] for one in (name, link["slug"])]
    problem(gateway.api.get(at({"slug": name})), 410, "gone")
    undone = gateway.api.post(at(link, "/undo"), headers={"Content-Length": "0"})

    assert statuses == [410, 410]
    assert [alias["slug"] for alias in undone.json()["aliases"]] == [name]
    gateway.becomes(BASE, f"/{name}", (302, link["long_url"]))


def test_removed_alias_is_gone_and_is_back_by_an_undo(gateway):
    link, name = gateway.link(), slug()
    add_alias(gateway, link, name)
    gateway.becomes(BASE, f"/{name}", (302, link["long_url"]))

    alias = {"alias": name}
    stale = gateway.api.delete(at(link, "/aliases"), params=alias, headers={"If-Match": '"1"'})
    removed = gateway.api.delete(at(link, "/aliases"), params=alias)
    assert gone(gateway, name)
    again = gateway.api.delete(at(link, "/aliases"), params=alias)
    unnamed = gateway.api.delete(at(link, "/aliases"))
    undone = gateway.api.post(at(link, "/undo"), headers={"Content-Length": "0"}).json()

    problem(stale, 412, "version_mismatch")
    assert (removed.status_code, removed.headers["etag"]) == (204, '"3"')
    problem(again, 404, "alias_not_found")
    assert problem(unnamed, 422, "invalid")["errors"][0]["code"] == "alias_missing"
    problem(gateway.api.delete(f"{LINKS}/{slug()}/aliases", params=alias), 404, "not_found")
    assert [alias["slug"] for alias in undone["aliases"]] == [name]
    gateway.becomes(BASE, f"/{name}", (302, link["long_url"]))


def test_rename_keeps_the_former_slug_as_an_alias(gateway):
    link, new = gateway.link(), slug()
    assert gateway.visit(BASE, f"/{link['slug']}")[0] == 302

    answer = rename(gateway, link, new)

    document = answer.json()
    assert answer.headers["content-location"] == f"{LINKS}/{new}"
    assert answer.headers["etag"] == '"2"'
    assert (document["slug"], document["created_at"]) == (new, link["created_at"])
    assert [alias["slug"] for alias in document["aliases"]] == [link["slug"]]
    for name in (new, link["slug"]):
        gateway.becomes(BASE, f"/{name}", (302, link["long_url"]))
    [change] = gateway.api.get(at(document, "/history")).json()["changes"]
    assert (change["before"]["slug"], change["after"]["slug"]) == (link["slug"], new)
    eventually(lambda: gateway.api.get(at(document)).json()["visits"] >= 3, 10, "earlier visits count")


def test_rename_without_the_former_slug_and_back(gateway):
    link, new = gateway.link(), slug()

    renamed = rename(gateway, link, new, keep_old=False).json()
    assert renamed["aliases"] == []
    assert gone(gateway, link["slug"])
    problem(gateway.api.get(at(link)), 410, "gone")
    problem(gateway.api.post(LINKS, json={"long_url": TARGET, "slug": link["slug"]}), 409, "slug_taken")
    undone = gateway.api.post(at(renamed, "/undo"), headers={"Content-Length": "0"})

    assert (undone.status_code, undone.json()["slug"]) == (200, link["slug"])
    gateway.becomes(BASE, f"/{link['slug']}", (302, link["long_url"]))
    eventually(lambda: gone(gateway, new), 30, "the undone slug is gone")


def test_rename_to_another_domain(gateway):
    link, new, host = gateway.link(), slug(), gateway.domain()

    document = rename(gateway, link, new, domain=host).json()

    assert (document["domain"], document["slug"]) == (host, new)
    gateway.becomes(host, f"/{new}", (302, link["long_url"]))
    gateway.becomes(BASE, f"/{link['slug']}", (302, link["long_url"]))


def test_rename_obeys_its_headers(gateway):
    link, new = gateway.link(), slug()
    key = {"Idempotency-Key": secrets.token_hex(8)}

    problem(rename(gateway, link, new, {"If-Match": '"7"'}), 412, "version_mismatch")
    first = rename(gateway, link, new, {"If-Match": '"1"', **key})
    again = rename(gateway, link, new, {"If-Match": '"1"', **key})
    other = rename(gateway, link, slug(), key)

    assert first.status_code == again.status_code == 200
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    problem(other, 422, "idempotency_key_reused")


def test_key_without_reading_is_shown_no_link(gateway):
    made = gateway.api.post("/api/v1/keys", json={"name": "writer", "scopes": ["links:write"]}).json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    link, name, new = gateway.link(), slug(), slug()

    added = gateway.api.post(at(link, "/aliases"), json={"slug": name}, headers=headers)
    refused = gateway.api.patch(at({"slug": name}), json={"title": "x"}, headers=headers)
    renamed = rename(gateway, link, new, headers)

    assert (added.status_code, added.headers["etag"]) == (204, '"2"')
    assert "link" not in problem(refused, 409, "is_alias")
    assert renamed.status_code == 204


def test_one_of_two_renames_at_once_wins(gateway):
    links, new = [gateway.link() for _ in range(4)], slug()

    with ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda link: rename(gateway, link, new).status_code, links))

    assert sorted(statuses) == [200, 409, 409, 409]


def test_slug_of_a_removed_link_is_free_after_its_time(gateway):
    link = gateway.link(max_visits=5)
    name = link["slug"]
    gateway.becomes(BASE, f"/{name}", (302, link["long_url"]))
    gateway.api.delete(at(link))
    body = {"long_url": f"{TARGET}second", "slug": name}

    problem(gateway.api.post(LINKS, json=body), 409, "slug_taken")
    file = f"{gateway.settings['HOPGATE_DATA_DIR']}/hopgate.db"
    db = apsw.Connection(file)
    db.set_busy_timeout(5000)
    db.execute("UPDATE links SET removed_at = removed_at - 40 * 86400000000 WHERE slug = ?", (name,))
    db.close()
    assert gone(gateway, name)
    second = gateway.api.post(LINKS, json=body)

    assert second.status_code == 201, second.text
    assert (second.json()["version"], second.json()["visits"]) == (3, 0)
    assert gateway.visit(BASE, f"/{name}") == (302, f"{TARGET}second")
    assert gateway.api.get(at(link, "/history")).json()["changes"] == []
    undo = gateway.api.post(at(link, "/undo"), headers={"Content-Length": "0"})
    problem(undo, 409, "nothing_to_undo")


def test_commands(gateway):
    link, name, new = gateway.link(), slug(), slug()

    added = hopgate(gateway.settings, "links", "alias", "add", link["slug"], name)
    by_alias = hopgate(gateway.settings, "links", "edit", name, "--title", "x")
    taken = hopgate(gateway.settings, "links", "alias", "add", link["slug"], gateway.link()["slug"])
    removed = hopgate(gateway.settings, "links", "alias", "remove", link["slug"], name)
    none = hopgate(gateway.settings, "links", "alias", "remove", link["slug"], name)
    renamed = hopgate(gateway.settings, "links", "rename", link["slug"], new, "--json")

    assert added.stdout == f"https://{BASE}/{name}\n"
    assert f"{name} is an alias of {link['slug']}" in by_alias.stderr
    assert "is taken" in taken.stderr
    assert removed.returncode == 0
    assert "has no such alias" in none.stderr
    document = json.loads(renamed.stdout)
    assert (document["slug"], document["aliases"][0]["slug"]) == (new, link["slug"])
    assert httpx.get(f"{gateway.url}/readyz").status_code == 200
