"""Slugs of other letters than those of ASCII, over HTTP: each spelling finds its link."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain import scripts, slug
from app.domain.errors import InvalidInput
from tests.integration.api_calls import LINKS, problem
from tests.integration.domain_gateway import BASE, DOMAINS, TARGET, Serving, serving
from tests.integration.front_gateway import ALONE, FRONT
from tests.servers.hopgate import eventually, hopgate


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Serving]:
    yield from serving(request.param, tmp_path_factory.mktemp("unicode"))


@pytest.fixture(scope="module")
def host(gateway) -> str:
    return gateway.domain(unicode=True, multi_segment=True, min_slug_length=1)


@pytest.fixture(scope="module")
def low(gateway) -> str:
    return gateway.domain(unicode=True, case_sensitive=False, min_slug_length=1)


def spellings(name: str) -> set[str]:
    """Every way in which a program may send *name*."""
    forms = {name, unicodedata.normalize("NFD", name)}
    quoted = {quote(one, safe=safe) for one in forms for safe in ("", "/")}
    return quoted | {escaped_low(one) for one in quoted} | {f"{one}." for one in quoted}


def escaped_low(path: str) -> str:
    head, *rest = path.split("%")
    return "%".join([head, *(one[:2].lower() + one[2:] for one in rest)])


_ASCII = "abcXYZ019_-"
_BY_SCRIPT: dict[str, str] = {}
for _letter, _script in scripts._scripts().items():
    _BY_SCRIPT[_script] = _BY_SCRIPT.get(_script, "") + _letter
SEGMENTS = st.sampled_from(sorted(_BY_SCRIPT)).flatmap(
    lambda script: st.text(st.sampled_from(_BY_SCRIPT[script] + _ASCII), min_size=1, max_size=12)
)
NAMES = st.lists(SEGMENTS, min_size=1, max_size=3).map("/".join)


@settings(max_examples=3, suppress_health_check=list(HealthCheck), deadline=None)
@given(st.lists(NAMES | st.text(max_size=10), min_size=60, max_size=60), st.randoms(use_true_random=False))
def test_accepted_slug_leads_to_its_own_target(gateway, host, names, random):
    stamp = f"{random.getrandbits(48):x}"
    names = list({slug.canonical(f"{name}{stamp}"): None for name in names})
    items = [{"slug": one, "long_url": f"{TARGET}{n}-{stamp}", "domain": host} for n, one in enumerate(names)]
    answer = gateway.api.post(f"{LINKS}/bulk", json={"links": items})
    assert answer.status_code == 200, answer.text

    for item, result in zip(items, answer.json()["results"], strict=True):
        try:
            slug.parse(item["slug"], slug.MOVED, slug.ALL)
        except InvalidInput:
            assert result["error"]["errors"][0]["field"] == "slug", item
            continue
        if result["status"] == 409:  # drawn in an earlier example
            continue
        link = result["link"]
        assert link["short_url"].isascii()
        path = link["short_url"].removeprefix(f"https://{host}")
        gateway.becomes(host, path, (302, item["long_url"]))
        for spelled in spellings(item["slug"]):
            assert gateway.visit(host, f"/{spelled}") == (302, item["long_url"]), spelled


def test_link_is_the_same_in_every_place(gateway, host, tmp_path):
    name, at = "café/été", {"domain": host}
    link = gateway.link(host, slug=unicodedata.normalize("NFD", name))

    assert (link["slug"], link["short_url"]) == (name, f"https://{host}/caf%C3%A9/%C3%A9t%C3%A9")
    path = f"{LINKS}/{quote(unicodedata.normalize('NFD', name), safe='')}"
    assert gateway.api.get(path, params=at).json() == link
    assert gateway.api.patch(path, params=at, json={"title": "x"}).json()["title"] == "x"
    assert gateway.api.get(f"{path}/history", params=at).json()["slug"] == name
    taken = gateway.api.post(LINKS, json={"long_url": TARGET, "slug": name, "domain": host})
    assert problem(taken, 409, "slug_taken")
    for _ in range(3):
        gateway.becomes(host, "/caf%c3%a9/%C3%A9te%CC%81", (302, link["long_url"]))
    eventually(lambda: gateway.api.get(path, params=at).json()["visits"] == 3, 30, "visits are counted")
    changed = gateway.api.patch(path, params=at, json={"long_url": f"{TARGET}new"})
    assert changed.status_code == 200
    gateway.becomes(host, "/caf%C3%A9/%C3%A9t%C3%A9", (302, f"{TARGET}new"))
    gateway.api.post("/api/v1/blocks", json={"slugs": [unicodedata.normalize("NFD", name)]})
    eventually(lambda: gateway.visit(host, "/caf%C3%A9/%C3%A9t%C3%A9")[0] == 451, 30, "it is blocked")
    assert gateway.api.delete(f"/api/v1/blocks/slugs/{quote(name, safe='')}").status_code == 204
    shown = hopgate(gateway.settings, "links", "get", name, "--domain", host)
    assert '"title": "x"' in shown.stdout
    file = tmp_path / "out.jsonl"
    assert hopgate(gateway.settings, "links", "export", "--output", str(file)).returncode == 0
    done = hopgate(gateway.settings, "links", "import", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert gateway.api.delete(path, params=at).status_code == 204
    gateway.becomes(host, "/caf%C3%A9/%C3%A9t%C3%A9", (410, None))


def test_slugs_without_case_fold_alike_everywhere(gateway, low):
    for typed, others in {
        "Ünï": ["ÜNÏ", "ünï"],
        "Straße": ["STRASSE", "strasse", "STRAẞE"],
        "ΟΔΟΣΧΞ": ["οδοςχξ"],
    }.items():
        link = gateway.link(low, slug=typed)
        for other in (typed, *others):
            gateway.becomes(low, f"/{quote(other)}", (302, link["long_url"]))
            assert (
                gateway.api.get(f"{LINKS}/{quote(other)}", params={"domain": low}).json()["slug"]
                == link["slug"]
            )


def test_default_domain_lists_what_sorts_after_all_others(gateway, host):
    """Keys of other domains begin with a character of ASCII; those of emoji come after."""
    assert gateway.visit(BASE, "/%F0%9F%8E%89")[0] == 404
    assert gateway.api.patch(f"{DOMAINS}/{BASE}", json={"unicode": True}).status_code == 200
    url = f"{TARGET}party"
    link = gateway.link(slug="🎉é", long_url=url)
    elsewhere = gateway.link(host, slug="🎉é", long_url=url)

    gateway.becomes(BASE, "/%F0%9F%8E%89%C3%A9", (302, url))
    for at, wanted in ((BASE, link), (host, elsewhere)):
        found = gateway.api.get(LINKS, params={"domain": at, "long_url": url}).json()["links"]
        assert found == [wanted]
        listed = gateway.api.get(LINKS, params={"domain": at, "sort": "slug", "limit": 200}).json()["links"]
        assert wanted in listed
        assert {one["domain"] for one in listed} == {at}
        again = gateway.api.post(LINKS, json={"long_url": url, "reuse": True, "domain": at})
        assert (again.status_code, again.json()["slug"]) == (200, "🎉é")
    gateway.api.patch(f"{DOMAINS}/{BASE}", json={"unicode": False})
    refused = gateway.api.post(LINKS, json={"long_url": TARGET, "slug": "🎉ü"})
    assert problem(refused, 422, "invalid")["errors"][0]["code"] == "slug_malformed"
    gateway.becomes(BASE, "/%F0%9F%8E%89%C3%A9", (302, url))
