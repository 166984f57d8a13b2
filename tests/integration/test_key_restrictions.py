"""Owners of links; keys that reach some links only, from some addresses only, at a rate of their own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import httpx
import pytest

from tests.integration.api_calls import LINKS, create, fresh_slug, problem
from tests.integration.domain_gateway import BASE, Serving
from tests.integration.key_holder import KEYS, Holder, hand, serving_all
from tests.servers.hopgate import hopgate

ME, BULK = "/api/v1/me", f"{LINKS}/bulk"
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module", params=["off", "on"])
def gateway(request, tmp_path_factory) -> Iterator[Serving]:
    yield from serving_all(request.param, tmp_path_factory)


@pytest.fixture
def holder_of(gateway) -> Iterator[Callable[..., Holder]]:
    """Makes clients with keys of their own."""
    with ExitStack() as stack:
        yield lambda *scopes, **more: stack.enter_context(Holder(gateway, *scopes, **more))


# --- owners ------------------------------------------------------------------------------


def test_links_are_listed_by_owner(gateway, holder_of):
    one, other = holder_of(), holder_of()
    made = [create(one, title="first"), create(one, title="second")]
    [bulk] = one.post(BULK, json={"links": [{"long_url": "https://example.com/", "title": "bulk"}]}).json()[
        "results"
    ]
    lines = one.post(BULK, content='{"long_url": "https://example.com/", "title": "line"}\n', headers=NDJSON)

    assert {link["owner"] for link in (*made, bulk["link"], lines.json()["link"])} == {one.key_id}
    mine = ["line", "bulk", "second", "first"]
    assert one.titles(owner="me") == other.titles(owner=one.key_id) == mine
    assert one.titles(owner=one.key_id, sort="title") == sorted(mine)
    assert other.titles(owner="me") == []
    assert one.titles(owner="me", search="secon") == ["second"]
    cursor = one.get(LINKS, params={"owner": "me", "limit": 1}).json()["next_cursor"]
    problem(one.get(LINKS, params={"owner": other.key_id, "cursor": cursor}), 422, "invalid")
    listed = hopgate(gateway.settings, "links", "list", "--owner", one.key_id, "--json")
    assert [link["title"] for link in json.loads(listed.stdout)] == mine


@pytest.mark.parametrize("owner", ["", "you", "a", "k" * 9, "~~~~~~~~"])
def test_owner_that_is_no_key_is_refused(gateway, owner):
    answer = gateway.api.get(LINKS, params={"owner": owner})

    assert problem(answer, 422, "invalid")["errors"][0]["code"] == "owner_invalid"


def test_admins_hand_links_over(gateway, holder_of):
    holder, new = holder_of(), holder_of()
    link = create(holder)

    problem(holder.patch(f"{LINKS}/{link['slug']}", json={"owner": new.key_id}), 403, "forbidden")
    errors = problem(hand(gateway, link, "k" * 8), 422, "invalid")["errors"]
    assert [(one["field"], one["code"]) for one in errors] == [("owner", "owner_unknown")]
    handed = hand(gateway, link, new.key_id)
    assert (handed.json()["owner"], handed.json()["version"]) == (new.key_id, 2)
    assert hand(gateway, link, None).json()["owner"] is None
    assert link["slug"] in [
        one["slug"] for one in holder.get(LINKS, params={"owner": "none"}).json()["links"]
    ]
    done = hopgate(gateway.settings, "links", "edit", link["slug"], "--owner", new.key_id, "--json")
    assert json.loads(done.stdout)["owner"] == new.key_id
    refused = hopgate(gateway.settings, "links", "edit", link["slug"], "--owner", "k" * 8)
    assert (refused.returncode != 0, "no key" in refused.stderr) == (True, True)


def test_admins_hand_many_links_over(gateway, holder_of):
    holder, new = holder_of(), holder_of()
    slugs = [create(holder)["slug"] for _ in range(2)]
    items = [
        {"slug": slugs[0], "owner": new.key_id},
        {"slug": slugs[1], "owner": None, "title": "changed"},
        {"slug": slugs[0], "owner": "k" * 8},
    ]

    results = gateway.api.patch(BULK, json={"links": items}).json()["results"]
    lines = gateway.api.patch(
        BULK, content=json.dumps({"slug": slugs[1], "owner": new.key_id}), headers=NDJSON
    ).json()
    by_holder = holder.patch(BULK, json={"links": items[:1]}).json()["results"]

    assert [one["status"] for one in results] == [200, 200, 422]
    assert [one["link"]["owner"] for one in results[:2]] == [new.key_id, None]
    assert lines["link"]["owner"] == new.key_id
    assert (by_holder[0]["status"], by_holder[0]["error"]["errors"][0]["code"]) == (422, "scope_missing")


def test_exported_owners_come_back(gateway, holder_of, tmp_path):
    """Where a key is unknown, its links have no owner."""
    holder = holder_of()
    slug = create(holder, title="exported")["slug"]
    for form in ("csv", "jsonl"):
        file = tmp_path / f"links.{form}"
        done = hopgate(gateway.settings, "links", "export", "--format", form, "--output", str(file))
        assert done.returncode == 0, done.stderr
        line = next(one for one in file.read_text().splitlines() if slug in one)
        assert holder.key_id in line
        renamed = fresh_slug() + form
        head = file.read_text().splitlines()[:1] if form == "csv" else []
        file.write_text("\n".join([*head, line.replace(slug, renamed)]) + "\n")
        assert hopgate(gateway.settings, "links", "import", str(file)).returncode == 0
        assert gateway.api.get(f"{LINKS}/{renamed}").json()["owner"] == holder.key_id
        unknown = renamed + "x"
        text = file.read_text().replace(renamed, unknown).replace(holder.key_id, "k" * 8)
        file.write_text(text)
        assert hopgate(gateway.settings, "links", "import", str(file)).returncode == 0
        assert gateway.api.get(f"{LINKS}/{unknown}").json()["owner"] is None


# --- own links, domains ------------------------------------------------------------------


def test_replay_shows_no_link_that_was_handed_over(gateway, holder_of):
    holder = holder_of(own_links=True)
    request = {"headers": {"Idempotency-Key": fresh_slug()}, "json": {"long_url": "https://example.com/"}}
    made = holder.post(LINKS, **request).json()
    assert holder.post(LINKS, **request).json()["slug"] == made["slug"]
    hand(gateway, made, None)
    gateway.api.patch(f"{LINKS}/{made['slug']}", json={"title": "secret"})

    again = holder.post(LINKS, **request)

    assert (again.status_code, "secret" in again.text) == (201, False)
    problem(holder.get(f"{LINKS}/{made['slug']}"), 404, "not_found")


def test_reuse_finds_own_links_alone(gateway, holder_of):
    holder = holder_of(own_links=True)
    target = f"https://example.com/{fresh_slug()}"
    others = gateway.link(long_url=target)["slug"]

    made = holder.post(LINKS, json={"long_url": target, "reuse": True})
    again = holder.post(LINKS, json={"long_url": target, "reuse": True})
    batch = holder.post(BULK, json={"links": [{"long_url": target}], "reuse": True}).json()["results"]

    assert (made.status_code, again.status_code, batch[0]["status"]) == (201, 200, 200)
    assert made.json()["slug"] == again.json()["slug"] == batch[0]["link"]["slug"] != others
    assert holder_of().post(LINKS, json={"long_url": target, "reuse": True}).json()["slug"] == others


def test_external_id_of_anothers_link_is_taken_and_no_more(gateway, holder_of):
    holder = holder_of(own_links=True)
    own = create(holder)["slug"]
    name = fresh_slug()
    gateway.link(external_id=name, title="secret")
    item = {"long_url": "https://example.com/", "external_id": name}

    answers = [holder.post(LINKS, json=item), holder.patch(f"{LINKS}/{own}", json={"external_id": name})]
    [upserted] = holder.post(BULK, json={"links": [item], "upsert": "external_id"}).json()["results"]
    [edited] = holder.patch(BULK, json={"links": [{"slug": own, "external_id": name}]}).json()["results"]

    for answer in answers:
        assert "link" not in problem(answer, 409, "external_id_taken")
    for result in (upserted, edited):
        assert (result["status"], "link" in result["error"]) == (409, False)


def test_lines_of_a_restricted_key_change_own_links_alone(gateway, holder_of):
    holder = holder_of(own_links=True)
    own, others = create(holder)["slug"], gateway.link(title="secret")["slug"]
    lines = "".join(json.dumps({"slug": slug, "title": "changed"}) + "\n" for slug in (own, others))

    answer = holder.patch(BULK, content=lines, headers=NDJSON)

    assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [200, 404]
    assert gateway.api.get(f"{LINKS}/{others}").json()["title"] == "secret"


def test_removed_links_of_others_are_not_told_from_others(gateway, holder_of):
    holder = holder_of(own_links=True)
    link, removed = gateway.link(), gateway.link()
    gateway.api.delete(f"{LINKS}/{removed['slug']}")

    answers = [
        holder.post(LINKS, json={"long_url": "https://example.com/", "slug": one["slug"]})
        for one in (link, removed)
    ]

    details = [problem(answer, 409, "slug_taken")["detail"] for answer in answers]
    assert [detail.split(" ", 1)[1] for detail in details] == ["is not free."] * 2
    for method, rest in (("GET", ""), ("DELETE", ""), ("GET", "/history"), ("POST", "/undo")):
        problem(holder.request(method, f"{LINKS}/{removed['slug']}{rest}"), 404, "not_found")


def test_key_of_a_domain_makes_links_there(gateway, holder_of):
    host, other = gateway.domain(), gateway.domain()
    holder = holder_of(domains=[host, BASE])

    assert create(holder, domain=host)["domain"] == host
    assert create(holder)["domain"] == BASE
    refusals = [
        holder.post(LINKS, json={"long_url": "https://example.com/", "domain": other, **more})
        for more in ({}, {"reuse": True})
    ]
    for refused in refusals:
        assert problem(refused, 422, "invalid")["errors"][0]["code"] == "domain_forbidden"
    assert gateway.api.get(LINKS, params={"domain": other}).json()["links"] == []
    assert holder.get(LINKS, params={"domain": other, "count": "true"}).json()["count"] == 0
    assert sorted(holder.get(ME).json()["domains"]) == sorted([host, BASE])


# --- addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("forwarded", "is_allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.1.2.3", False),
        ("2001:db8::1", True),
        (None, False),
    ],
)
def test_key_counts_from_its_addresses_alone(gateway, holder_of, forwarded, is_allowed):
    holder = holder_of("admin", allowed_addresses=["10.0.0.0/8", "2001:db8::/32"])
    headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}

    for path in (ME, LINKS, KEYS, f"{LINKS}/nothing-here", "/status?format=json"):
        answer = holder.get(path, headers=headers)
        if is_allowed:
            assert answer.status_code in {200, 404}, answer.text
        else:
            problem(answer, 403, "address_forbidden")


def test_no_key_is_made_for_more_addresses(gateway, holder_of):
    headers = {"X-Forwarded-For": "10.1.2.3"}
    holder = holder_of("admin", allowed_addresses=["10.0.0.0/8"])
    free = holder_of()

    def made(**more: object) -> httpx.Response:
        body = {"name": "made", "scopes": ["links:read"], **more}
        return holder.post(KEYS, json=body, headers=headers)

    assert made().json()["allowed_addresses"] == ["10.0.0.0/8"]
    assert made(allowed_addresses=["10.7.0.0/16"]).json()["allowed_addresses"] == ["10.7.0.0/16"]
    rotated = holder.post(f"{KEYS}/{free.key_id}/rotate", json={}, headers=headers)
    for answer in (made(allowed_addresses=["0.0.0.0/0"]), rotated):
        assert problem(answer, 422, "invalid")["errors"][0]["code"] == "address_not_held"


# --- rates, scopes, rules ----------------------------------------------------------------


def test_key_has_a_rate_of_its_own(gateway, holder_of):
    limited, other = holder_of(rate_limit="2 per hour"), holder_of(rate_limit="100/s")

    answers = [limited.get(ME) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[0].json()["limits"]["requests"] == answers[0].json()["rate_limit"]
    assert int(problem(answers[2], 429, "too_many_requests") and answers[2].headers["retry-after"]) > 1
    assert {other.get(ME).status_code for _ in range(10)} == {200}


def test_key_of_statistics_reads_nothing_else(gateway, holder_of):
    holder = holder_of("stats:read")
    slug = gateway.link()["slug"]

    assert holder.get(f"{LINKS}/{slug}/stats").json()["slug"] == slug
    for path in (LINKS, f"{LINKS}/{slug}", f"{LINKS}/{slug}/history", "/api/v1/tags"):
        problem(holder.get(path), 403, "forbidden")


@pytest.mark.parametrize(
    ("wanted", "field", "code"),
    [
        ({"scopes": ["admin"], "own_links": True}, "own_links", "admin_restricted"),
        ({"scopes": ["admin"], "domains": [BASE]}, "domains", "admin_restricted"),
        ({"domains": []}, "domains", "domains_empty"),
        ({"domains": ["nothing.example"]}, "domains", "domain_unknown"),
        ({"allowed_addresses": ["10.0.0.1/8"]}, "allowed_addresses", "address_invalid"),
        ({"rate_limit": "often"}, "rate_limit", "rate_invalid"),
        ({"rate_limit": "1/s; 5/m"}, "rate_limit", "rate_invalid"),
        ({"rate_limit": "9" * 40 + "/s"}, "rate_limit", "rate_invalid"),
    ],
    ids=str,
)
def test_restrictions_that_cannot_be_are_refused(gateway, wanted, field, code):
    answer = gateway.api.post(KEYS, json={"name": "x", "scopes": ["links:read"], **wanted})

    assert [(one["field"], one["code"]) for one in problem(answer, 422, "invalid")["errors"]] == [
        (field, code)
    ]


def test_command_line_makes_such_keys(gateway):
    host = gateway.domain()
    restrictions = (
        "--own-links",
        "--domain",
        host,
        "--allow-address",
        "127.0.0.1",
        "--rate-limit",
        "5 per minute",
    )
    done = hopgate(gateway.settings, "keys", "create", "cli", *restrictions, "--json")
    document = json.loads(done.stdout)

    me = httpx.get(gateway.url + ME, headers={"Authorization": f"Bearer {document['key']}"}).json()

    assert (me["own_links"], me["domains"], me["allowed_addresses"]) == (True, [host], ["127.0.0.1/32"])
    assert {name: value for name, value in document.items() if name in ("rate_limit", "scopes")} == {
        "rate_limit": me["rate_limit"],
        "scopes": ["links:read", "links:write"],
    }
    shown = hopgate(gateway.settings, "keys", "list").stdout
    assert "own links" in shown
    rotated = hopgate(gateway.settings, "keys", "rotate", document["key_id"], "--grace", "1h").stdout.strip()
    for key in (rotated, document["key"]):
        answer = httpx.get(gateway.url + ME, headers={"Authorization": f"Bearer {key}"})
        assert answer.status_code in {200, 401}
    assert hopgate(gateway.settings, "keys", "rotate", "k" * 8).returncode != 0
    refused = hopgate(gateway.settings, "keys", "create", "cli", "--allow-address", "10.0.0.1/8")
    assert (refused.returncode != 0, "10.0.0.0/8" in refused.stderr) == (True, True)


# --- answers about many links --------------------------------------------------------------


def test_export_has_what_the_key_reaches(gateway, holder_of):
    whole, own = holder_of(), holder_of("links:read", "links:write", own_links=True)
    create(whole, title="of others")
    create(own, title="mine")

    def titles(client: httpx.Client, **query: str) -> list[str]:
        lines = client.get("/api/v1/export", params=query).text.splitlines()
        return [json.loads(line)["title"] for line in lines]

    assert titles(own) == titles(own, sort="title") == ["mine"]
    assert titles(own, search="others") == titles(own, owner=whole.key_id) == []
    assert {"of others", "mine"} <= set(titles(whole))


def test_stream_has_what_the_key_reaches(gateway, holder_of):
    whole, own = holder_of(), holder_of("links:read", "links:write", own_links=True)
    with own.stream("GET", "/api/v1/events", timeout=30) as answer:
        lines = answer.iter_lines()
        while not next(lines).startswith("id:"):
            pass
        create(whole, title="of others")
        create(own, title="mine")
        data = next(line for line in lines if line.startswith("data:"))

    assert json.loads(data.partition(":")[2])["data"]["title"] == "mine"


def test_statistics_of_all_links_are_for_keys_that_reach_all(gateway, holder_of):
    assert holder_of().get("/api/v1/stats").status_code == 200
    for restriction in ({"own_links": True}, {"domains": [BASE]}):
        problem(holder_of("links:read", **restriction).get("/api/v1/stats"), 403, "key_restricted")
        problem(holder_of("links:read", **restriction).get("/api/v1/stats?tag=a"), 403, "key_restricted")


def test_statistics_of_a_domain_are_for_keys_of_it(gateway, holder_of):
    host = gateway.domain()
    of_domain, of_base = f"/api/v1/stats?domain={host}", f"/api/v1/stats?domain={BASE}"
    own = holder_of("links:read", domains=[host])

    assert holder_of("links:read").get(of_domain).status_code == 200
    assert own.get(of_domain).status_code == 200
    answer = problem(own.get(of_base), 422, "invalid")
    assert answer["errors"][0]["code"] == "domain_forbidden"
    owner = holder_of("links:read", domains=[host], own_links=True)
    problem(owner.get(of_domain), 403, "key_restricted")


def test_export_of_a_key_that_was_revoked_ends(gateway, holder_of):
    holder = holder_of("links:read", "links:write")
    # More than what is sent before anything is read.
    items = [{"long_url": f"https://example.com/{'x' * 4000}", "title": "t" * 40} for _ in range(1000)]
    for _ in range(6):
        answer = gateway.api.post(BULK, json={"links": items}, timeout=30)
        assert answer.status_code == 200
    with holder.stream("GET", "/api/v1/export", timeout=30) as answer:
        lines = answer.iter_lines()
        next(lines)
        assert gateway.api.delete(f"{KEYS}/{holder.key_id}").status_code == 204
        *_, last = lines
    assert "the key counts no longer" in last
