"""The HTTP API of a real gateway, over real sockets."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.api_calls import LINKS, create, fresh_slug, problem
from tests.servers.hopgate import make_key


def test_created_link_redirects_to_its_canonical_target(api, visitor):
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


def test_all_fields_are_returned_as_sent(api):
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


def test_taken_slug_is_409_with_its_link(api):
    first = create(api, slug=fresh_slug())

    answer = api.post(LINKS, json={"long_url": "https://example.com/other", "slug": first["slug"]})

    assert problem(answer, 409, "slug_taken")["link"] == first


def test_concurrent_creates_of_a_slug_make_one(api):
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


def test_repeated_request_makes_one_link(api):
    headers = {"Idempotency-Key": "once"}
    body = {"long_url": "https://example.com/once"}

    first = api.post(LINKS, json=body, headers=headers)
    second = api.post(LINKS, json=body, headers=headers)

    assert first.status_code == second.status_code == 201
    assert second.json() == first.json()
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"


def test_idempotency_key_belongs_to_one_body(api):
    headers = {"Idempotency-Key": "one-body"}
    api.post(LINKS, json={"long_url": "https://example.com/1"}, headers=headers)

    answer = api.post(LINKS, json={"long_url": "https://example.com/2"}, headers=headers)

    problem(answer, 422, "idempotency_key_reused")


def test_idempotency_key_belongs_to_its_api_key(api, embedded):
    other = {"Authorization": f"Bearer {make_key(embedded.settings)}", "Idempotency-Key": "shared"}
    body = {"long_url": "https://example.com/"}

    mine = api.post(LINKS, json=body, headers={"Idempotency-Key": "shared"}).json()
    theirs = api.post(LINKS, json=body, headers=other).json()

    assert mine["slug"] != theirs["slug"]


def test_edit_raises_the_version_and_shows_immediately(api, visitor):
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


def test_edit_of_another_version_changes_nothing(api):
    link = create(api)
    path = f"{LINKS}/{link['slug']}"

    answer = api.patch(path, json={"title": "x"}, headers={"If-Match": '"7"'})

    assert problem(answer, 412, "version_mismatch")["link"] == link
    assert api.get(path).json() == link


def test_unconditional_edits_all_apply(api):
    link = create(api)
    path = f"{LINKS}/{link['slug']}"

    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda i: api.patch(path, json={"title": str(i)}).status_code, range(9)))

    assert answers == [200] * 9
    assert api.get(path).json()["version"] == 10


def test_null_clears_a_time_and_omission_keeps_it(api):
    link = create(api, expires_at="2031-01-01T00:00:00Z", title="kept")
    path = f"{LINKS}/{link['slug']}"

    assert api.patch(path, json={"title": "new"}).json()["expires_at"] == "2031-01-01T00:00:00Z"
    cleared = api.patch(path, json={"expires_at": None}).json()
    assert cleared["expires_at"] is None
    assert cleared["title"] == "new"


def test_link_redirects_max_visits_times(api, visitor):
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
def test_invalid_max_visits_is_422(api, max_visits):
    answer = api.post(LINKS, json={"long_url": "https://example.com/", "max_visits": max_visits})

    assert problem(answer, 422, answer.json()["code"])["errors"][0]["field"] == "max_visits"


def test_edit_obeys_the_rules_of_create(api):
    link = create(api)
    path = f"{LINKS}/{link['slug']}"

    problem(api.patch(path, json={"long_url": "javascript:alert(1)"}), 422, "invalid")
    problem(api.patch(path, json={"long_url": f"http://hop.example/{link['slug']}"}), 422, "invalid")
    problem(api.patch(path, json={}), 422, "invalid")
    problem(api.patch(path, json={"slug": "other"}), 422, "invalid")
    assert api.get(path).json() == link


def test_removed_link_is_gone_for_ever(api, visitor):
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


def test_disabled_link_is_gone_until_enabled(api, visitor):
    link = create(api)
    path = f"/{link['slug']}"

    api.patch(LINKS + path, json={"enabled": False})
    problem(visitor.get(path), 410, "gone")
    api.patch(LINKS + path, json={"enabled": True})
    assert visitor.get(path).status_code == 302


def test_expired_link_is_410_and_future_link_404(api, visitor):
    link = create(api)
    path = f"/{link['slug']}"

    api.patch(LINKS + path, json={"expires_at": "2020-01-01T00:00:00Z"})
    problem(visitor.get(path), 410, "gone")
    api.patch(LINKS + path, json={"expires_at": None, "valid_from": "2090-01-01T00:00:00Z"})
    problem(visitor.get(path), 404, "not_found")


def test_unknown_slug_is_404_until_created(api, visitor):
    """A cached 404 must not outlive the creation of its link."""
    slug = fresh_slug()
    problem(visitor.get(f"/{slug}"), 404, "not_found")

    create(api, slug=slug)

    assert visitor.get(f"/{slug}").status_code == 302


def test_query_is_forwarded_only_on_request(api, visitor):
    plain = create(api, long_url="https://example.com/?a=1#f")
    forwarding = create(api, long_url="https://example.com/?a=1#f", forward_query=True)

    assert visitor.get(f"/{plain['slug']}?b=2").headers["location"] == "https://example.com/?a=1#f"
    there = visitor.get(f"/{forwarding['slug']}?b=2&c=%2F&d")
    assert there.headers["location"] == "https://example.com/?a=1&b=2&c=%2F&d#f"


def test_listing_pages_newest_first_without_gaps(api):
    made = [create(api)["slug"] for _ in range(5)]

    seen: list[str] = []
    cursor = None
    while len(seen) < 5:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = api.get(LINKS, params=params).json()
        seen += [link["slug"] for link in page["links"]]
        cursor = page["next_cursor"]

    assert seen[:5] == made[::-1]


def test_invalidation_raises_versions_and_names_unknown_slugs(api):
    link = create(api)

    answer = api.post(
        "/api/v1/cache/invalidate", json={"slugs": [link["slug"], "unknown-slug", "not a slug"]}
    )

    assert answer.status_code == 202
    assert answer.json() == {"invalidated": 1, "unknown": ["unknown-slug", "not a slug"]}
    assert api.get(f"{LINKS}/{link['slug']}").json()["version"] == 2


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
def test_other_method_is_405_with_allow(visitor, method, path, allow):
    answer = visitor.request(method, path)

    problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allow


def test_options_allows_no_other_origin(visitor):
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
        "dependencies": {"store": "ok", "cache": "ok", "bus": "ok", "front": "ok"},
    }


def test_api_response_forbids_caching_sniffing_and_framing(api, visitor):
    for answer in (api.get(LINKS), visitor.get(LINKS), visitor.get("/unknown-slug"), visitor.get("/x/y/z")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("text", ["2026-11-28T00:00:00+01:00", "2026-11-28T00:00:00.5+0100"])
def test_lost_plus_of_a_time_is_named(api, text):
    link = create(api)

    answer = api.get(f"{LINKS}/{link['slug']}/stats?since={text}")

    [error] = problem(answer, 422, "invalid")["errors"]
    assert (error["field"], error["code"]) == ("since", "time_unreadable")
    assert "%2B" in error["message"]


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/metrics", "/robots.txt", "/api/v1/openapi.json", "/none", "/a/b", LINKS]
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT"])
def test_every_answer_has_security_headers(visitor, method, path):
    answer = visitor.request(method, path)

    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["cache-control"] == "no-store"


def test_redirect_forbids_sniffing(api, visitor):
    slug = create(api)["slug"]

    # Looked up, from the L1 cache, and a HEAD.
    answers = [visitor.get(f"/{slug}"), visitor.get(f"/{slug}"), visitor.head(f"/{slug}")]

    assert [answer.headers["x-content-type-options"] for answer in answers] == ["nosniff"] * 3
