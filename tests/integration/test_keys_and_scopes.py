"""API keys: what each scope permits, and what its holder sees."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.api_calls import LINKS, create, fresh_slug, problem
from tests.servers.hopgate import make_key


def test_scopes_are_enforced(embedded):
    reader = {"Authorization": f"Bearer {make_key(embedded.settings, 'links:read')}"}
    with httpx.Client(base_url=embedded.url, headers=reader) as client:
        assert client.get(LINKS).status_code == 200
        problem(client.post(LINKS, json={"long_url": "https://example.com/"}), 403, "forbidden")
        problem(client.patch(f"{LINKS}/abc", json={"title": "x"}), 403, "forbidden")
        problem(client.delete(f"{LINKS}/abc"), 403, "forbidden")
        problem(client.post("/api/v1/cache/invalidate", json={"slugs": ["abc"]}), 403, "forbidden")


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer null", "Basic dTpw", "hg_x", "Bearer hg_"])
def test_invalid_key_is_401(visitor, header):
    answer = visitor.get(LINKS, headers={} if header is None else {"Authorization": header})

    problem(answer, 401, "unauthorized")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.fixture
def writer(embedded):
    """A client whose key may write links, and read none."""
    headers = {"Authorization": f"Bearer {make_key(embedded.settings, 'links:write')}"}
    with httpx.Client(base_url=embedded.url, headers=headers) as client:
        yield client


def test_write_only_key_sees_no_link(api, writer):
    """409, 412 and the answer to an edit hold a link only for a key that may read it."""
    slug = create(api, slug=fresh_slug(), title="secret title", long_url="https://secret.example/")["slug"]
    path = f"{LINKS}/{slug}"

    taken = writer.post(LINKS, json={"long_url": "https://example.com/", "slug": slug})
    stale = writer.patch(path, json={"tags": ["x"]}, headers={"If-Match": '"7"'})
    listed = writer.delete(path, headers={"If-Match": '"7", "8"'})
    edited = writer.patch(path, json={"tags": ["x"]})

    assert "link" not in problem(taken, 409, "slug_taken")
    assert "link" not in problem(stale, 412, "version_mismatch")
    assert "link" not in problem(listed, 412, "version_mismatch")
    assert (edited.status_code, edited.content, edited.headers["etag"]) == (204, b"", '"2"')
    assert not any("secret" in answer.text for answer in (taken, stale, listed, edited))


def test_write_only_key_sees_no_edit_of_others_in_a_replay(api, writer):
    request = {"headers": {"Idempotency-Key": fresh_slug()}, "json": {"long_url": "https://example.com/"}}
    made = writer.post(LINKS, **request).json()
    api.patch(f"{LINKS}/{made['slug']}", json={"title": "secret title"})

    again = writer.post(LINKS, **request)

    assert (again.status_code, again.headers["location"]) == (201, f"{LINKS}/{made['slug']}")
    assert "secret" not in again.text
