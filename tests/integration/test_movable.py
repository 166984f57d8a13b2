"""What other shorteners hold can be moved here: their slugs and their targets, by every way in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.domain.slug import MAX_LENGTH
from tests.integration.conftest import EmbeddedGateway
from tests.servers.hopgate import hopgate, make_key

LINKS = "/api/v1/links"
LONGEST = "https://example.com/" + "a" * 8172


@pytest.fixture(scope="module")
def ordinary(embedded: EmbeddedGateway) -> Iterator[httpx.Client]:
    """A client with a key that may do anything with links."""
    key = make_key(embedded.settings, "links:read", "links:write")
    with httpx.Client(base_url=embedded.url, headers={"Authorization": f"Bearer {key}"}) as client:
        yield client


@pytest.mark.parametrize("slug", ["1", "z", "1a", "_", "s" * MAX_LENGTH, "help", "about", "login", "robots"])
def test_slug_is_created_read_changed_and_visited(
    api: httpx.Client, visitor: httpx.Client, slug: str
) -> None:
    made = api.post(LINKS, json={"long_url": "https://example.com/", "slug": slug})
    assert made.status_code == 201, made.text

    changed = api.patch(f"{LINKS}/{slug}", json={"long_url": "https://example.com/2"})

    assert changed.status_code == 200
    assert api.get(f"{LINKS}/{slug}").json()["long_url"] == "https://example.com/2"
    assert api.get(f"{LINKS}/{slug}/stats").status_code == 200
    assert api.post("/api/v1/cache/invalidate", json={"slugs": [slug]}).json() == {
        "invalidated": 1,
        "unknown": [],
    }
    for visited in (visitor.get(f"/{slug}"), visitor.head(f"/{slug}"), visitor.get(f"/{slug}")):
        assert (visited.status_code, visited.headers["location"]) == (302, "https://example.com/2")


@pytest.mark.parametrize("slug", ["2", "zz", "t" * 65, "t" * 128])
def test_length_that_is_left_to_admins_is_named(
    ordinary: httpx.Client, visitor: httpx.Client, slug: str
) -> None:
    refused = ordinary.post(LINKS, json={"long_url": "https://example.com/", "slug": slug})

    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert error["code"] == "slug_malformed"
    assert error["message"] == (
        "must be 3 to 64 characters of A-Z a-z 0-9 _ - (1 to 128 in an import, or with the scope admin)"
    )
    assert visitor.get(f"/{slug}").status_code == 404


@pytest.mark.parametrize("slug", ["abc", "t" * 64, "privacy"])
def test_ordinary_key_chooses_as_before(ordinary: httpx.Client, slug: str) -> None:
    assert ordinary.post(LINKS, json={"long_url": "https://example.com/", "slug": slug}).status_code == 201


@pytest.mark.parametrize("slug", ["console", "Docs", "API"])
def test_path_of_the_service_is_reserved_for_all(
    api: httpx.Client, ordinary: httpx.Client, slug: str
) -> None:
    for client in (api, ordinary):
        refused = client.post(LINKS, json={"long_url": "https://example.com/", "slug": slug})
        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "slug_reserved")


def test_longest_target_is_stored_changed_and_emitted(api: httpx.Client, visitor: httpx.Client) -> None:
    made = api.post(LINKS, json={"long_url": LONGEST, "slug": "longest", "forward_query": True})

    assert made.status_code == 201, made.text
    assert visitor.get("/longest").headers["location"] == LONGEST
    asked = "q=" + "x" * 8000
    assert visitor.get(f"/longest?{asked}").headers["location"] == f"{LONGEST}?{asked}"
    longer = api.patch(f"{LINKS}/longest", json={"long_url": LONGEST + "a"})
    assert longer.status_code == 422
    assert longer.json()["errors"][0]["message"] == "is 8193 characters in canonical form, the most is 8192"


def test_command_line_moves_them(embedded: EmbeddedGateway, visitor: httpx.Client, tmp_path: Path) -> None:
    file = tmp_path / "links.csv"
    long_slug = "i" * MAX_LENGTH
    rows = [("7", LONGEST), ("y", "https://example.com/y"), (long_slug, "https://example.com/i"),
            ("terms", "https://example.com/terms")]  # fmt: skip
    file.write_text("slug,long_url\n" + "".join(f"{slug},{url}\n" for slug, url in rows))

    imported = hopgate(embedded.settings, "links", "import", str(file))
    created = hopgate(embedded.settings, "links", "create", "https://example.com/8", "--slug", "8")

    assert (imported.returncode, created.returncode) == (0, 0), imported.stderr + created.stderr
    for slug, url in [*rows, ("8", "https://example.com/8")]:
        assert visitor.get(f"/{slug}").headers["location"] == url
