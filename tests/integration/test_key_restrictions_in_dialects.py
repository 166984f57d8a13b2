"""Keys that reach some links only, in the dialects of other shorteners."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from tests.integration.api_calls import LINKS, fresh_slug
from tests.integration.domain_gateway import BASE, Serving
from tests.integration.key_holder import Holder, serving_all

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


class _Beyond:
    """A link that a key does not reach, at a host, and calls of each dialect with that key."""

    def __init__(self, holder: Holder, link: dict) -> None:
        self.holder, self.link, self.slug, self.host = holder, link, link["slug"], link["domain"]

    def yourls(self, action: str, **more: str) -> httpx.Response:
        form = {"signature": self.holder.document["key"], "format": "json", "action": action, **more}
        return self.holder.post("/yourls-api.php", data=form)

    def shlink(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"X-Api-Key": self.holder.document["key"]}
        return self.holder.request(method, f"/rest/v3{path}", headers=headers, **more)

    def bitly(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self.holder.request(method, f"/v4{path}", **more)

    def looks(self) -> Iterator[tuple[str, httpx.Response]]:
        """Give what names the link, none of which may find it."""
        at, here = f"https://{self.host}/{self.slug}", {"domain": self.host}
        for action in ("expand", "url-stats"):
            yield action, self.yourls(action, shorturl=at)
        one = f"/short-urls/{self.slug}"
        for path in (one, f"{one}/visits", f"{one}/redirect-rules"):
            yield path, self.shlink("GET", path, params=here)
        yield "edit", self.shlink("PATCH", one, params=here, json={"title": "changed"})
        yield "delete", self.shlink("DELETE", one, params=here)
        bitlink = f"/bitlinks/{self.host}/{self.slug}"
        yield "bitlink", self.bitly("GET", bitlink)
        yield "patch", self.bitly("PATCH", bitlink, json={"title": "changed"})
        for units in ("-1", "1"):
            counted = {"units": units, "unit": "day"}
            yield "clicks", self.bitly("GET", f"{bitlink}/clicks/summary", params=counted)
        yield "expand", self.bitly("POST", "/expand", json={"bitlink_id": f"{self.host}/{self.slug}"})

    def lists(self) -> Iterator[tuple[str, httpx.Response]]:
        """Give listings, none of which may have it, and changes of its tag, which it may not lose."""
        [tag] = self.link["tags"]
        yield "short URLs", self.shlink("GET", "/short-urls", params={"tags[]": tag})
        yield "of the host", self.shlink("GET", "/short-urls", params={"domain": self.host})
        yield "tags", self.shlink("GET", "/tags")
        yield "retag", self.shlink("PUT", "/tags", json={"oldName": tag, "newName": "other"})
        yield "untag", self.shlink("DELETE", "/tags", params={"tags[]": tag})
        yield "domains", self.shlink("GET", "/domains")
        yield "groups", self.bitly("GET", "/groups")
        yield "group", self.bitly("GET", "/groups/hopgate")


@pytest.mark.parametrize("is_elsewhere", [False, True])
def test_dialects_neither_show_nor_change_what_a_key_does_not_reach(gateway, holder_of, is_elsewhere):
    host = gateway.domain() if is_elsewhere else None
    restriction = {"domains": [BASE]} if is_elsewhere else {"own_links": True}
    word = f"secret{fresh_slug()}"
    secret = gateway.link(host, title=word, tags=[f"tag {word}"])
    beyond = _Beyond(holder_of(**restriction), secret)

    for name, answer in beyond.looks():
        assert answer.status_code == 404, (name, answer.text)
        assert word not in answer.text, name
    for name, answer in beyond.lists():
        assert answer.status_code < 500, name
        shown = answer.text.replace(secret["tags"][0], "") if name == "retag" else answer.text
        assert word not in shown, name
        assert secret["slug"] not in shown, name
        if is_elsewhere:
            assert secret["domain"] not in shown, name
    where = {"domain": secret["domain"]}
    assert gateway.api.get(f"{LINKS}/{secret['slug']}", params=where).json() == secret


def test_dialects_make_no_links_for_other_domains(gateway, holder_of):
    host, other = gateway.domain(), gateway.domain()
    holder = holder_of(domains=[host])
    beyond = _Beyond(holder, gateway.link(other))
    target = "https://example.com/"

    answers = [
        beyond.yourls("shorturl", url=target),
        *(
            beyond.shlink("POST", "/short-urls", json={"longUrl": target, **more})
            for more in ({}, {"domain": other}, {"domain": other, "findIfExists": True})
        ),
        *(
            beyond.bitly("POST", path, json={"long_url": target, **more})
            for path in ("/shorten", "/bitlinks")
            for more in ({}, {"domain": other})
        ),
    ]

    assert {answer.status_code for answer in answers} <= {400, 422}, [one.text for one in answers]
    assert beyond.bitly("POST", "/shorten", json={"long_url": target, "domain": host}).status_code == 201
    assert gateway.api.get(LINKS, params={"domain": other, "count": "true"}).json()["count"] == 1


def test_dialects_tell_no_removed_link_of_others_from_another(gateway, holder_of):
    beyond = _Beyond(holder_of(own_links=True), gateway.link())
    removed = gateway.link()
    gateway.api.delete(f"{LINKS}/{removed['slug']}")
    target = "https://example.com/"

    for make in (
        lambda slug: beyond.yourls("shorturl", url=target, keyword=slug),
        lambda slug: beyond.shlink("POST", "/short-urls", json={"longUrl": target, "customSlug": slug}),
        lambda slug: beyond.bitly("POST", "/bitlinks", json={"long_url": target, "keyword": slug}),
    ):
        texts = [make(slug).text.replace(slug, "SLUG") for slug in (beyond.slug, removed["slug"])]
        assert texts[0] == texts[1]


def test_dialects_repeat_nothing_of_a_link_that_was_handed_over(gateway, holder_of):
    beyond = _Beyond(holder_of(own_links=True), gateway.link())
    target = f"https://example.com/{fresh_slug()}"
    key = beyond.holder.document["key"]

    def calls(name: str) -> Iterator[httpx.Response]:
        again = {"Idempotency-Key": name}
        form = {"signature": key, "format": "json", "action": "shorturl", "url": target}
        yield beyond.holder.post("/yourls-api.php", data=form, headers=again)
        headers = {"X-Api-Key": key, "Idempotency-Key": f"{name}s"}
        yield beyond.holder.post("/rest/v3/short-urls", json={"longUrl": target}, headers=headers)
        more = {"Idempotency-Key": f"{name}b"}
        yield beyond.holder.post("/v4/bitlinks", json={"long_url": target}, headers=more)

    name = fresh_slug()
    assert [answer.status_code for answer in calls(name)] == [200, 200, 201]
    for link in gateway.api.get(LINKS, params={"long_url": target}).json()["links"]:
        changed = {"owner": None, "title": "secret", "long_url": "https://example.com/secret"}
        assert gateway.api.patch(f"{LINKS}/{link['slug']}", json=changed).status_code == 200

    for answer in calls(name):
        assert answer.status_code in {200, 201}
        assert "secret" not in answer.text


def test_key_counts_from_its_addresses_alone_in_dialects(gateway, holder_of):
    beyond = _Beyond(holder_of(allowed_addresses=["10.0.0.0/8"]), gateway.link(tags=["any"]))

    statuses = [answer.status_code for _, answer in (*beyond.looks(), *beyond.lists())]

    assert set(statuses) == {403}


def test_totals_of_dialects_are_for_keys_that_reach_all(gateway, holder_of):
    own, whole = holder_of("links:read", own_links=True), holder_of("links:read")
    for holder, status in ((own, 403), (whole, 200)):
        beyond = _Beyond(holder, gateway.link())
        for answer in (beyond.yourls("db-stats"), beyond.yourls("stats"), beyond.shlink("GET", "/visits")):
            assert answer.status_code == status
