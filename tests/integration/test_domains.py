"""Domains: hosts, their pages and settings, on an embedded gateway with and without the front."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.integration.api_calls import LINKS, problem
from tests.integration.domain_gateway import BASE, DOMAINS, PAGES, TARGET, Serving, serving
from tests.integration.front_gateway import ALONE, FRONT, settled, total
from tests.servers.hopgate import UNLIMITED, Gateway, becomes, eventually, hopgate, make_key


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Serving]:
    yield from serving(request.param, tmp_path_factory.mktemp("domains"))


@pytest.fixture(scope="module")
def host(gateway) -> str:
    return gateway.domain()


def test_pages_stand_in_for_refusals(gateway):
    host = gateway.domain(**PAGES)
    spent = gateway.link(host, max_visits=1)
    off = gateway.link(host, enabled=False)

    for _ in range(3):
        assert gateway.visit(host, "/") == (302, PAGES["root_url"])
        assert gateway.visit(host, "/nothing") == (302, PAGES["not_found_url"])
        assert gateway.visit(host, "/a/b.html") == (302, PAGES["not_found_url"])
        assert gateway.visit(host, f"/{off['slug']}") == (302, PAGES["expired_url"])
        assert gateway.visit(host, "/nothing", "HEAD") == (302, PAGES["not_found_url"])
    assert gateway.visit(host, f"/{spent['slug']}") == (302, spent["long_url"])
    for _ in range(3):
        assert gateway.visit(host, f"/{spent['slug']}") == (302, PAGES["expired_url"])
    assert [gateway.visit(BASE, path)[0] for path in ("/", "/nothing")] == [404, 404]
    assert gateway.visit(host, "/api/v1/nothing")[0] == 404
    # No visit of a link: nothing was clicked.
    key = {"domain": host}
    assert gateway.api.get(f"{LINKS}/{off['slug']}", params=key).json()["visits"] == 0


def test_change_of_a_page_shows_within_a_second(gateway):
    host = gateway.domain(not_found_url=PAGES["not_found_url"])
    gateway.becomes(host, "/nothing", (302, PAGES["not_found_url"]))

    assert gateway.api.patch(f"{DOMAINS}/{host}", json={"not_found_url": None}).status_code == 200
    eventually(lambda: gateway.visit(host, "/nothing")[0] == 404, 30, "the page is gone")
    done = hopgate(gateway.settings, "domains", "edit", host, "--not-found-url", f"{TARGET}new")
    assert done.returncode == 0, done.stderr
    gateway.becomes(host, "/nothing", (302, f"{TARGET}new"))


def test_default_domain_has_pages_as_well(gateway):
    assert gateway.api.patch(f"{DOMAINS}/{BASE}", json=PAGES).status_code == 200
    try:
        gateway.becomes(BASE, "/", (302, PAGES["root_url"]))
        gateway.becomes(BASE, "/nothing", (302, PAGES["not_found_url"]))
        spent = gateway.link(max_visits=1)
        for wanted in (spent["long_url"], PAGES["expired_url"]):
            assert gateway.visit(BASE, f"/{spent['slug']}") == (302, wanted)
    finally:
        gateway.api.patch(f"{DOMAINS}/{BASE}", json=dict.fromkeys(PAGES))
    gateway.becomes(BASE, "/nothing", (404, None))


def test_targets_at_own_domains_are_refused(gateway, host):
    """They would send visitors in a circle."""
    link = gateway.link()
    calls = [
        gateway.api.post(LINKS, json={"long_url": f"https://{host}/x"}),
        gateway.api.post(LINKS, json={"long_url": f"http://{host.upper()}:8080/x", "domain": host}),
        gateway.api.patch(f"{LINKS}/{link['slug']}", json={"long_url": f"https://{host}/"}),
        gateway.api.post(DOMAINS, json={"host": "x.example", "root_url": f"https://{host}/"}),
        gateway.api.patch(f"{DOMAINS}/{host}", json={"root_url": f"https://{BASE}/x"}),
    ]
    for answer in calls:
        assert problem(answer, 422, "invalid")["errors"][0]["code"] == "url_own_host", answer.text
    target = f"t{secrets.token_hex(6)}.example"
    gateway.link(long_url=f"https://{target}/page")
    problem(gateway.api.post(DOMAINS, json={"host": target}), 409, "domain_is_target")


def test_pages_do_not_lead_back(gateway):
    """A page at its own domain would send visitors in a circle, whatever the port or the spelling."""
    host, later = (f"d{secrets.token_hex(6)}.example" for _ in range(2))
    for page in (f"http://{host}:9999/", f"https://{host.upper()}./x"):
        answer = gateway.api.post(DOMAINS, json={"host": host, "root_url": page})
        assert problem(answer, 422, "invalid")["errors"][0]["code"] == "url_own_host"
    low = gateway.domain(root_url=f"https://{later}/")
    answer = gateway.api.post(DOMAINS, json={"host": later})
    assert problem(answer, 422, "invalid")["errors"][0]["code"] == "domain_is_page"
    dotted = f"t{secrets.token_hex(6)}.example"
    gateway.link(long_url=f"https://{dotted}./x")
    problem(gateway.api.post(DOMAINS, json={"host": dotted}), 409, "domain_is_target")
    # What stays as it is is not judged again.
    blocked = f"b{secrets.token_hex(6)}.example"
    page = gateway.api.patch(f"{DOMAINS}/{low}", json={"root_url": f"https://{blocked}/"})
    assert page.status_code == 200
    assert gateway.api.post("/api/v1/blocks", json={"hosts": [blocked]}).status_code == 200
    assert gateway.api.patch(f"{DOMAINS}/{low}", json={"min_slug_length": 4}).status_code == 200


def test_blocked_host_is_no_page(gateway):
    blocked = f"b{secrets.token_hex(6)}.example"
    pages = {name: f"https://{blocked}/{name}" for name in PAGES}
    host = gateway.domain(**pages)
    spent, off = gateway.link(host, max_visits=1), gateway.link(host, enabled=False)
    assert gateway.visit(host, f"/{spent['slug']}")[0] == 302
    visits = {
        "/": ("root_url", 404),
        "/a/b": ("not_found_url", 404),
        "/nothing": ("not_found_url", 404),
        f"/{off['slug']}": ("expired_url", 410),
        f"/{spent['slug']}": ("expired_url", 410),
    }
    for path, (name, _) in visits.items():
        gateway.becomes(host, path, (302, pages[name]))

    assert gateway.api.post("/api/v1/blocks", json={"hosts": [blocked]}).status_code == 200
    for path, (_, status) in visits.items():
        gateway.becomes(host, path, (status, None))
    assert gateway.api.delete(f"/api/v1/blocks/hosts/{blocked}").status_code == 204
    for path, (name, _) in visits.items():
        gateway.becomes(host, path, (302, pages[name]))


def test_root_without_a_page_costs_nothing(tmp_path):
    """Health checks ask for it."""
    settings = {
        "HOPGATE_DATA_DIR": str(tmp_path / "data"),
        "HOPGATE_FRONT": "on",
        **UNLIMITED,
        "HOPGATE_LIMIT_NOT_FOUND": "5 per minute",
    }
    make_key(settings)
    hopgate(settings, "links", "create", TARGET, "--slug", "known")
    with Gateway(settings, tmp_path) as gateway:
        assert {httpx.get(f"{gateway.url}/").status_code for _ in range(20)} == {404}
        assert httpx.get(f"{gateway.url}/known").status_code == 302


def test_former_domain_that_is_the_base_url_is_named(tmp_path):
    settings = {
        "HOPGATE_DATA_DIR": str(tmp_path / "data"),
        "HOPGATE_BASE_URL": f"https://{BASE}",
        **UNLIMITED,
    }
    key = make_key(settings)
    assert hopgate(settings, "domains", "add", "go.example").returncode == 0
    moved = {**settings, "HOPGATE_BASE_URL": "https://go.example"}
    with Gateway(moved, tmp_path) as gateway:
        answer = httpx.get(f"{gateway.url}{DOMAINS}", headers={"Authorization": f"Bearer {key}"})
        assert [one["host"] for one in answer.json()["domains"]] == ["go.example"]
        assert "go.example has the host of the base URL" in gateway.output
        assert "served nowhere" in hopgate(moved, "doctor").stdout


def test_ipv6_base_url_is_a_domain(tmp_path):
    settings = {
        "HOPGATE_DATA_DIR": str(tmp_path / "data"),
        "HOPGATE_BASE_URL": "http://[2001:db8::1]",
        **UNLIMITED,
    }
    key = make_key(settings)
    headers = {"Authorization": f"Bearer {key}"}
    with Gateway(settings, tmp_path) as gateway, httpx.Client(base_url=gateway.url, headers=headers) as api:
        link = api.post(LINKS, json={"long_url": TARGET}).json()
        assert link["domain"] == "[2001:db8::1]"
        assert api.get(f"{LINKS}/{link['slug']}", params={"domain": link["domain"]}).json() == link


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"host": "not a host"}, "url_forbidden_character"),
        ({"host": "https://x.example"}, "url_host"),
        ({"host": "x.example:80"}, "url_host"),
        ({"host": "[::1]"}, "host_address"),
        ({"host": "=r0.*"}, "url_host"),
        ({"host": "a..example"}, "url_host"),
        ({"host": "0" * 254}, "url_host"),
        ({"host": ""}, "url_host"),
        ({"host": "x.example", "root_url": "ftp://x.example/"}, "url_scheme"),
        ({"host": "x.example", "min_slug_length": 0}, "min_slug_length_invalid"),
        ({"host": "x.example", "min_slug_length": 65}, "min_slug_length_invalid"),
        ({"host": "x.example", "colour": "red"}, "schema"),
    ],
    ids=str,
)
def test_bad_domains_are_refused(gateway, body, code):
    before = gateway.api.get(DOMAINS).json()

    assert problem(gateway.api.post(DOMAINS, json=body), 422, "invalid")["errors"][0]["code"] == code
    assert gateway.api.get(DOMAINS).json() == before


def test_hosts_are_compared_in_one_form(gateway):
    name = secrets.token_hex(4)
    made = gateway.api.post(DOMAINS, json={"host": f"BÜCHER-{name}.example"})

    host = made.json()["host"]
    assert host.startswith("xn--bcher-")
    for spelled in (host, f"bücher-{name}.example", host.upper(), f"{host}."):
        problem(gateway.api.post(DOMAINS, json={"host": spelled}), 409, "domain_taken")
    problem(gateway.api.post(DOMAINS, json={"host": BASE.upper()}), 409, "domain_taken")
    link = gateway.link(f"bücher-{name}.example")
    gateway.becomes(host, f"/{link['slug']}", (302, link["long_url"]))


def test_domain_at_once_is_added_once(gateway):
    host = f"d{secrets.token_hex(6)}.example"
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: gateway.api.post(DOMAINS, json={"host": host}), range(8)))

    assert sorted(one.status_code for one in answers) == [201] + [409] * 7


def test_domain_is_removed_when_its_links_are(gateway):
    host = gateway.domain(**PAGES, case_sensitive=False)
    link, path = gateway.link(host), f"{DOMAINS}/{host}"
    gateway.becomes(host, f"/{link['slug']}", (302, link["long_url"]))

    problem(gateway.api.delete(path), 409, "domain_in_use")
    assert gateway.api.delete(f"{LINKS}/{link['slug']}", params={"domain": host}).status_code == 204
    assert gateway.api.delete(path).status_code == 204
    problem(gateway.api.get(path), 404, "not_found")
    problem(gateway.api.delete(path), 404, "not_found")
    for nowhere in ("%60%C2%80", "a%20b", "%C2%91", "=r0.*", "x.example:80"):
        problem(gateway.api.get(f"{DOMAINS}/{nowhere}"), 404, "not_found")
        problem(gateway.api.patch(f"{DOMAINS}/{nowhere}", json={"min_slug_length": 4}), 404, "not_found")
        problem(gateway.api.delete(f"{DOMAINS}/{nowhere}"), 404, "not_found")
    gateway.becomes(host, f"/{link['slug']}", (404, None))
    problem(gateway.api.delete(f"{DOMAINS}/{BASE}"), 422, "invalid")
    # Its slugs are never given out again, so it comes back with them.
    answer = gateway.api.post(DOMAINS, json={"host": host})
    assert problem(answer, 422, "invalid")["errors"][0]["code"] == "case_sensitive_fixed"
    assert gateway.api.post(DOMAINS, json={"host": host, "case_sensitive": False}).status_code == 201
    taken = gateway.api.post(LINKS, json={"long_url": TARGET, "slug": link["slug"], "domain": host})
    problem(taken, 409, "slug_taken")


def test_keys_that_read_links_read_domains(gateway):
    def client(*scopes: str) -> httpx.Client:
        key = gateway.api.post("/api/v1/keys", json={"name": "x", "scopes": scopes}).json()["key"]
        return httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"})

    with client("links:read") as reader, client("links:write") as writer:
        assert reader.get(DOMAINS).status_code == reader.get(f"{DOMAINS}/{BASE}").status_code == 200
        assert writer.get(DOMAINS).status_code == 403
        for method in ("POST", "PATCH", "DELETE"):
            path = DOMAINS if method == "POST" else f"{DOMAINS}/{BASE}"
            assert reader.request(method, path, json={}).status_code == 403


def test_redirects_of_domains_are_counted_once(gateway):
    host = gateway.domain(**PAGES)
    link = gateway.link(host)

    def answered() -> float:
        return total(gateway, "hopgate_redirects_total")

    gateway.becomes(host, f"/{link['slug']}", (302, link["long_url"]))
    before = settled(answered)
    for _ in range(4):
        for path in (f"/{link['slug']}", "/nothing", "/nothing.html", "/"):
            assert gateway.visit(host, path)[0] == 302, path
    becomes(lambda: answered() - before, 16, 10, "counted redirects")
