"""The HTTP API of a real gateway, over real sockets."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.servers.hopgate import make_key

LINKS = "/api/v1/links"
_numbers = itertools.count()


def fresh_slug() -> str:
    return f"slug-{next(_numbers)}"


def create(api, **body):
    answer = api.post(LINKS, json={"long_url": "https://example.com/", **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def problem(answer, status, code):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    assert document["status"] == status
    assert document["code"] == code
    return document


def test_a_created_link_redirects_to_its_canonical_target(api, visitor):
    link = create(api, long_url="https://EXAMPLE.com/päth?q=ü#frag")

    answer = visitor.get(f"/{link['slug']}")

    assert link["short_url"] == f"http://hop.example/{link['slug']}"
    assert answer.status_code == 302
    assert answer.headers["location"] == "https://example.com/p%C3%A4th?q=%C3%BC#frag"
    assert answer.content == b""


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_each_redirect_code_is_used(api, visitor, code):
    link = create(api, redirect_code=code)

    assert visitor.get(f"/{link['slug']}").status_code == code


def test_all_fields_come_back_as_they_were_sent(api):
    slug = fresh_slug()
    sent = {
        "slug": slug,
        "long_url": "https://example.com/x",
        "title": "Ünïcode 🐦",
        "tags": ["b", "a"],
        "redirect_code": 307,
        "valid_from": "2029-01-01T00:00:00Z",
        "expires_at": "2031-01-01T00:00:00.123456Z",
        "max_visits": 5,
        "forward_query": True,
        "enabled": False,
    }

    created = create(api, **sent)
    read = api.get(f"{LINKS}/{slug}").json()

    assert {name: created[name] for name in sent} == sent
    assert read == created
    assert created["version"] == 1


def test_a_taken_slug_is_409_with_the_link_that_has_it(api):
    first = create(api, slug=fresh_slug())

    answer = api.post(LINKS, json={"long_url": "https://example.com/other", "slug": first["slug"]})

    assert problem(answer, 409, "slug_taken")["link"] == first


def test_of_a_hundred_who_want_a_slug_one_gets_it(api):
    slug = fresh_slug()

    with ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(
                lambda i: (
                    api.post(LINKS, json={"long_url": f"https://example.com/{i}", "slug": slug}).status_code
                ),
                range(100),
            )
        )

    assert sorted(answers) == [201] + [409] * 99


def test_the_same_request_twice_makes_one_link(api):
    headers = {"Idempotency-Key": "once"}
    body = {"long_url": "https://example.com/once"}

    first = api.post(LINKS, json=body, headers=headers)
    second = api.post(LINKS, json=body, headers=headers)

    assert first.status_code == second.status_code == 201
    assert second.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


def test_an_idempotency_key_stands_for_one_body(api):
    headers = {"Idempotency-Key": "one-body"}
    api.post(LINKS, json={"long_url": "https://example.com/1"}, headers=headers)

    answer = api.post(LINKS, json={"long_url": "https://example.com/2"}, headers=headers)

    problem(answer, 422, "idempotency_key_reused")


def test_an_idempotency_key_belongs_to_its_api_key(api, embedded):
    other = {"Authorization": f"Bearer {make_key(embedded.settings)}", "Idempotency-Key": "shared"}
    body = {"long_url": "https://example.com/"}

    mine = api.post(LINKS, json=body, headers={"Idempotency-Key": "shared"}).json()
    theirs = api.post(LINKS, json=body, headers=other).json()

    assert mine["slug"] != theirs["slug"]


def test_an_edit_raises_the_version_and_is_seen_at_once(api, visitor):
    link = create(api)
    path = f"/{link['slug']}"
    assert visitor.get(path).headers["location"] == "https://example.com/"

    answer = api.patch(
        LINKS + path, json={"long_url": "https://example.com/new"}, headers={"If-Match": '"1"'}
    )

    assert answer.status_code == 200
    assert answer.headers["etag"] == '"2"'
    assert answer.json()["version"] == 2
    assert answer.json()["created_at"] == link["created_at"]
    assert visitor.get(path).headers["location"] == "https://example.com/new"


def test_an_edit_of_another_version_changes_nothing(api):
    link = create(api)
    path = f"{LINKS}/{link['slug']}"

    answer = api.patch(path, json={"title": "x"}, headers={"If-Match": '"7"'})

    assert problem(answer, 412, "version_mismatch")["link"] == link
    assert api.get(path).json() == link


def test_edits_without_if_match_all_take_place(api):
    link = create(api)
    path = f"{LINKS}/{link['slug']}"

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda i: api.patch(path, json={"title": str(i)}).status_code, range(9)))

    assert answers == [200] * 9
    assert api.get(path).json()["version"] == 10


def test_null_clears_a_time_and_leaving_it_out_keeps_it(api):
    link = create(api, expires_at="2031-01-01T00:00:00Z", title="kept")
    path = f"{LINKS}/{link['slug']}"

    assert api.patch(path, json={"title": "new"}).json()["expires_at"] == "2031-01-01T00:00:00Z"
    cleared = api.patch(path, json={"expires_at": None}).json()
    assert cleared["expires_at"] is None
    assert cleared["title"] == "new"


def test_a_link_gives_as_many_redirects_as_it_has_visits(api, visitor):
    link = create(api, max_visits=3)
    path = f"/{link['slug']}"

    assert [visitor.head(path).status_code for _ in range(5)] == [302] * 5
    assert [visitor.get(path).status_code for _ in range(5)] == [302] * 3 + [410] * 2
    assert visitor.head(path).status_code == 410
    api.patch(LINKS + path, json={"max_visits": 4})
    assert [visitor.get(path).status_code for _ in range(3)] == [302, 410, 410]
    assert api.patch(LINKS + path, json={"title": "kept"}).json()["max_visits"] == 4
    assert visitor.get(path).status_code == 410
    assert api.patch(LINKS + path, json={"max_visits": None}).json()["max_visits"] is None
    assert [visitor.get(path).status_code for _ in range(5)] == [302] * 5


@pytest.mark.parametrize("max_visits", [0, -1, 2**53, 10**30, 1.5, "5", True])
def test_what_is_no_number_of_visits_is_422(api, max_visits):
    answer = api.post(LINKS, json={"long_url": "https://example.com/", "max_visits": max_visits})

    assert problem(answer, 422, answer.json()["code"])["errors"][0]["field"] == "max_visits"


def test_an_edit_obeys_the_rules_of_a_create(api):
    link = create(api)
    path = f"{LINKS}/{link['slug']}"

    problem(api.patch(path, json={"long_url": "javascript:alert(1)"}), 422, "invalid")
    problem(api.patch(path, json={"long_url": f"http://hop.example/{link['slug']}"}), 422, "invalid")
    problem(api.patch(path, json={}), 422, "invalid")
    problem(api.patch(path, json={"slug": "other"}), 422, "invalid")
    assert api.get(path).json() == link


def test_a_removed_link_is_gone_for_ever(api, visitor):
    link = create(api, slug=fresh_slug())
    path = f"/{link['slug']}"

    assert visitor.get(path).status_code == 302
    assert api.delete(LINKS + path).status_code == 204

    problem(visitor.get(path), 410, "gone")
    problem(api.get(LINKS + path), 410, "gone")
    problem(api.delete(LINKS + path), 410, "gone")
    problem(api.patch(LINKS + path, json={"title": "x"}), 410, "gone")
    taken = api.post(LINKS, json={"long_url": "https://example.com/", "slug": link["slug"]})
    assert "link" not in problem(taken, 409, "slug_taken")


def test_a_disabled_link_is_gone_until_enabled(api, visitor):
    link = create(api)
    path = f"/{link['slug']}"

    api.patch(LINKS + path, json={"enabled": False})
    problem(visitor.get(path), 410, "gone")
    api.patch(LINKS + path, json={"enabled": True})
    assert visitor.get(path).status_code == 302


def test_an_expired_link_is_gone_and_a_future_one_not_there_yet(api, visitor):
    link = create(api)
    path = f"/{link['slug']}"

    api.patch(LINKS + path, json={"expires_at": "2020-01-01T00:00:00Z"})
    problem(visitor.get(path), 410, "gone")
    api.patch(LINKS + path, json={"expires_at": None, "valid_from": "2090-01-01T00:00:00Z"})
    problem(visitor.get(path), 404, "not_found")


def test_an_unknown_slug_is_404_until_it_is_created(api, visitor):
    """A negative answer must not outlive the creation of its link."""
    slug = fresh_slug()
    problem(visitor.get(f"/{slug}"), 404, "not_found")

    create(api, slug=slug)

    assert visitor.get(f"/{slug}").status_code == 302


def test_a_query_is_forwarded_only_where_asked_for(api, visitor):
    plain = create(api, long_url="https://example.com/?a=1#f")
    forwarding = create(api, long_url="https://example.com/?a=1#f", forward_query=True)

    assert visitor.get(f"/{plain['slug']}?b=2").headers["location"] == "https://example.com/?a=1#f"
    there = visitor.get(f"/{forwarding['slug']}?b=2&c=%2F&d")
    assert there.headers["location"] == "https://example.com/?a=1&b=2&c=%2F&d#f"


def test_the_listing_is_newest_first_and_pages_without_gaps(api):
    made = [create(api)["slug"] for _ in range(5)]

    seen, cursor = [], None
    while len(seen) < 5:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = api.get(LINKS, params=params).json()
        seen += [link["slug"] for link in page["links"]]
        cursor = page["next_cursor"]

    assert seen[:5] == made[::-1]


def test_invalidation_makes_known_slugs_newer_and_names_unknown_ones(api):
    link = create(api)

    answer = api.post(
        "/api/v1/cache/invalidate", json={"slugs": [link["slug"], "unknown-slug", "not a slug"]}
    )

    assert answer.status_code == 202
    assert answer.json() == {"invalidated": 1, "unknown": ["unknown-slug", "not a slug"]}
    assert api.get(f"{LINKS}/{link['slug']}").json()["version"] == 2


def test_scopes_are_enforced(embedded):
    reader = {"Authorization": f"Bearer {make_key(embedded.settings, 'links:read')}"}
    with httpx.Client(base_url=embedded.url, headers=reader) as client:
        assert client.get(LINKS).status_code == 200
        problem(client.post(LINKS, json={"long_url": "https://example.com/"}), 403, "forbidden")
        problem(client.patch(f"{LINKS}/abc", json={"title": "x"}), 403, "forbidden")
        problem(client.delete(f"{LINKS}/abc"), 403, "forbidden")
        problem(client.post("/api/v1/cache/invalidate", json={"slugs": ["abc"]}), 403, "forbidden")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer null", "Basic dTpw", "hg_x", "Bearer hg_"])
def test_without_a_valid_key_nothing_is_said(visitor, header):
    answer = visitor.get(LINKS, headers={} if header is None else {"Authorization": header})

    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", LINKS, "GET, HEAD, OPTIONS, POST"),
        ("POST", f"{LINKS}/abc", "DELETE, GET, HEAD, OPTIONS, PATCH"),
        ("GET", "/api/v1/cache/invalidate", "OPTIONS, POST"),
        ("POST", "/abcdefg", "GET, HEAD, OPTIONS"),
        ("TRACE", "/abcdefg", "GET, HEAD, OPTIONS"),
        ("BREW", "/healthz", "GET, HEAD, OPTIONS"),
    ],
)
def test_another_method_is_405_and_says_which_would_do(visitor, method, path, allow):
    answer = visitor.request(method, path)

    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


def test_options_names_the_methods_and_allows_no_other_origin(visitor):
    answer = visitor.options(LINKS, headers={"Origin": "https://evil.example"})

    assert answer.status_code == 204
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/healthz", "/robots.txt", "/unknown-slug"])
def test_head_is_get_without_the_body(visitor, path):
    get, head = visitor.get(path), visitor.head(path)

    assert head.status_code == get.status_code
    assert head.content == b""
    assert head.headers["content-type"] == get.headers["content-type"]


def test_head_of_a_link_redirects_too(api, visitor):
    link = create(api)

    assert visitor.head(f"/{link['slug']}").headers["location"] == "https://example.com/"


def test_health_names_each_dependency(visitor):
    assert visitor.get("/healthz").json() == {"status": "ok"}
    assert visitor.get("/readyz").json() == {
        "status": "ok",
        "dependencies": {"store": "ok", "cache": "ok", "bus": "ok"},
    }


def test_every_api_answer_forbids_caching_sniffing_and_framing(api, visitor):
    for answer in (api.get(LINKS), visitor.get(LINKS), visitor.get("/unknown-slug"), visitor.get("/x/y/z")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"
