"""Domains: hosts with links of their own, on an embedded gateway with and without the front."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.integration.api_calls import LINKS, problem
from tests.integration.front_gateway import ALONE, FRONT, OWN_NAME, total
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_key
from tests.servers.raw_http import answered

DOMAINS = "/api/v1/domains"
TARGET = "https://example.com/"
BASE = "hop.example"


class Serving(Gateway):
    """A gateway, its settings and a client with every scope."""

    api: httpx.Client
    settings: dict[str, str]

    def domain(self, **settings: object) -> str:
        host = f"d{secrets.token_hex(6)}.example"
        answer = self.api.post(DOMAINS, json={"host": host, **settings})
        assert answer.status_code == 201, answer.text
        return host

    def link(self, host: str | None = None, **fields: object) -> dict:
        body = {"long_url": f"{TARGET}{secrets.token_hex(6)}", **fields}
        answer = self.api.post(LINKS, json=body if host is None else {**body, "domain": host})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def visit(self, host: str, path: str, method: str = "GET") -> tuple[int, str | None]:
        answer = self.api.request(method, path, headers={"Host": host})
        return answer.status_code, answer.headers.get("location")

    def becomes(self, host: str, path: str, wanted: tuple[int, str | None]) -> None:
        eventually(lambda: self.visit(host, path) == wanted, 5, f"{host}{path} answers {wanted}")


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("domains")
    settings = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": f"https://{BASE}",
        **request.param,
        **UNLIMITED,
    }
    key = make_key(settings)
    with (
        Serving(settings, directory) as gateway,
        httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        gateway.api, gateway.settings = client, settings
        yield gateway


@pytest.fixture(scope="module")
def host(gateway) -> str:
    return gateway.domain()


def slug() -> str:
    return f"s{secrets.token_hex(6)}"


def test_default_domain_is_that_of_the_base_url(gateway):
    default, *_ = gateway.api.get(DOMAINS).json()["domains"]

    assert (default["host"], default["is_default"], default["case_sensitive"]) == (BASE, True, True)
    assert gateway.link()["domain"] == BASE
    assert gateway.link(BASE)["short_url"].startswith(f"https://{BASE}/")


def test_each_domain_has_its_own_link_of_a_slug(gateway, host):
    name, other = slug(), gateway.domain()
    made = {at: gateway.link(at, slug=name) for at in (None, host, other)}

    assert made[host]["short_url"] == f"https://{host}/{name}"
    assert (made[host]["domain"], made[host]["slug"]) == (host, name)
    for _ in range(2):  # looked up, and from the L1 cache
        for at, link in made.items():
            gateway.becomes(at or BASE, f"/{name}", (302, link["long_url"]))
    if gateway.settings["HOPGATE_FRONT"] == "on":
        answer = gateway.api.get(f"/{name}", headers={"Host": host})
        assert answer.headers["server"] == OWN_NAME
    # Any other host has the links of the default domain.
    assert gateway.visit("127.0.0.1", f"/{name}") == (302, made[None]["long_url"])
    for spelled in (host.upper(), f"{host}:80", f"{host}.", f"{host}.:443"):
        assert gateway.visit(spelled, f"/{name}") == (302, made[host]["long_url"])


def test_link_of_one_domain_is_none_of_another(gateway, host):
    link = gateway.link(host)

    gateway.becomes(host, f"/{link['slug']}", (302, link["long_url"]))
    assert gateway.visit(BASE, f"/{link['slug']}")[0] == 404
    # What the store calls it is no address.
    for domain in range(1, 40):
        assert gateway.visit(BASE, f"/~{domain}~{link['slug']}")[0] == 404
        assert gateway.visit(BASE, f"/%7E{domain}%7E{link['slug']}")[0] == 404


def test_random_slugs_belong_to_the_domain(gateway, host):
    link = gateway.link(host)

    assert link["short_url"] == f"https://{host}/{link['slug']}"
    gateway.becomes(host, f"/{link['slug']}", (302, link["long_url"]))


def test_link_is_addressed_by_its_domain(gateway, host):
    name = slug()
    default, link = gateway.link(slug=name), gateway.link(host, slug=name)
    path, at = f"{LINKS}/{name}", {"domain": host}

    assert gateway.api.get(path).json() == default
    assert gateway.api.get(path, params=at).json() == link
    assert gateway.api.get(path, params={"domain": BASE}).json() == default
    changed = gateway.api.patch(path, params=at, json={"title": "other"})
    assert (changed.status_code, changed.json()["title"]) == (200, "other")
    assert gateway.api.get(path).json()["title"] == ""
    stats = gateway.api.get(f"{path}/stats", params=at).json()
    assert (stats["domain"], stats["slug"]) == (host, name)
    done = gateway.api.post("/api/v1/cache/invalidate", json={"slugs": [name, "nothing"], "domain": host})
    assert done.json() == {"invalidated": 1, "unknown": ["nothing"]}
    assert gateway.api.delete(path, params=at).status_code == 204
    problem(gateway.api.get(path, params=at), 410, "gone")
    assert gateway.api.get(path).status_code == 200
    problem(gateway.api.get(path, params={"domain": "none.example"}), 404, "not_found")
    problem(gateway.api.get(path, params={"domain": "https://x"}), 422, "invalid")


def test_location_of_a_new_link_leads_to_it(gateway, host):
    answer = gateway.api.post(LINKS, json={"long_url": TARGET, "domain": host})

    assert gateway.api.get(answer.headers["location"]).json() == answer.json()


def test_conflict_names_the_slug_that_people_see(gateway, host):
    link = gateway.link(host, slug=slug())

    answer = gateway.api.post(LINKS, json={"long_url": TARGET, "slug": link["slug"], "domain": host})

    assert problem(answer, 409, "slug_taken")["detail"].startswith(f"{link['slug']} ")
    assert answer.json()["link"] == link


def test_unknown_domain_is_refused(gateway):
    for body in ({"domain": "none.example"}, {"domain": "none.example", "reuse": True}):
        answer = gateway.api.post(LINKS, json={"long_url": TARGET, **body})
        assert problem(answer, 422, "invalid")["errors"][0]["code"] == "domain_unknown"
    answer = gateway.api.get(LINKS, params={"domain": "none.example"})
    assert problem(answer, 422, "invalid")["errors"][0]["code"] == "domain_unknown"


def test_listing_by_domain(gateway):
    host = gateway.domain()
    links = [gateway.link(host, title=f"n{n}") for n in range(5)]

    def listed(**params: object) -> list[str]:
        found: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = gateway.api.get(LINKS, params={**params, **cursor}).json()
            found += [one["short_url"] for one in page["links"]]
            if page["next_cursor"] is None:
                return found
            cursor = {"cursor": page["next_cursor"]}

    newest = [one["short_url"] for one in reversed(links)]
    assert listed(domain=host) == newest
    assert listed(domain=host, limit=2) == newest
    for sort in ("slug", "title", "clicks", "-created", "updated"):
        assert sorted(listed(domain=host, sort=sort, limit=2)) == sorted(newest)
    assert not set(newest) & set(listed(domain=BASE))
    assert set(newest) < set(listed(limit=200))
    assert gateway.api.get(LINKS, params={"domain": host, "count": "true"}).json()["count"] == 5


def test_batches_take_domains(gateway, host):
    name = slug()
    bulk = f"{LINKS}/bulk"

    def results(method: str, *items: object, **options: object) -> list[dict]:
        answer = gateway.api.request(method, bulk, json={"links": items, **options})
        assert answer.status_code == 200, answer.text
        return answer.json()["results"]

    new = {"long_url": TARGET, "slug": name}
    made = results(
        "POST", new, {**new, "domain": host}, {**new, "domain": "none.example"}, {**new, "domain": host}
    )
    assert [one["status"] for one in made] == [201, 201, 422, 409]
    assert [one["link"]["domain"] for one in made[:2]] == [BASE, host]
    changed = results("PATCH", {"slug": name, "domain": host, "title": "x"}, {"slug": name, "title": "y"})
    assert [(one["link"]["domain"], one["link"]["title"]) for one in changed] == [(host, "x"), (BASE, "y")]
    removed = results(
        "DELETE", name, {"slug": name, "domain": host}, {"slug": name, "domain": "none.example"}
    )
    assert [(one["status"], one.get("domain"), one.get("slug")) for one in removed] == [
        (204, BASE, name),
        (204, host, name),
        (422, None, None),
    ]


def test_reuse_stays_in_its_domain(gateway, host):
    body = {"long_url": f"{TARGET}{slug()}", "reuse": True}
    both = [gateway.api.post(LINKS, json={**body, **at}) for at in ({}, {"domain": host}) * 2]

    assert [one.status_code for one in both] == [201, 201, 200, 200]
    assert [one.json()["domain"] for one in both] == [BASE, host, BASE, host]
    assert both[0].json()["slug"] != both[1].json()["slug"]


def test_domain_without_case_finds_every_spelling(gateway):
    host = gateway.domain(case_sensitive=False)
    link = gateway.link(host, slug="Spring-Sale")

    assert link["slug"] == "spring-sale"
    gateway.becomes(host, "/SPRING-sale", (302, link["long_url"]))
    assert gateway.visit(host, "/spring-sale") == (302, link["long_url"])
    assert gateway.api.get(f"{LINKS}/SPRING-SALE", params={"domain": host}).json() == link
    taken = gateway.api.post(LINKS, json={"long_url": TARGET, "slug": "SPRING-SALE", "domain": host})
    problem(taken, 409, "slug_taken")
    random = gateway.link(host)["slug"]
    assert random == random.lower()
    assert gateway.visit(BASE, "/Spring-Sale")[0] == 404


def test_shortest_slug_is_a_setting(gateway):
    host = gateway.domain(min_slug_length=8)
    writer = gateway.api.post("/api/v1/keys", json={"name": "writer", "scopes": ["links:write"]}).json()[
        "key"
    ]
    headers = {"Authorization": f"Bearer {writer}"}

    def made(**body: object) -> int:
        answer = gateway.api.post(LINKS, json={"long_url": TARGET, **body}, headers=headers)
        return answer.status_code

    assert made(slug="short", domain=host) == 422
    assert made(slug=f"long{secrets.token_hex(3)}", domain=host) == 201
    assert gateway.api.patch(f"{DOMAINS}/{host}", json={"min_slug_length": 1}).status_code == 200
    assert made(slug="x", domain=host) == 201


PAGES = {"root_url": f"{TARGET}root", "not_found_url": f"{TARGET}404", "expired_url": f"{TARGET}gone"}


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
    eventually(lambda: gateway.visit(host, "/nothing")[0] == 404, 5, "the page is gone")
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


def test_pasted_ends_are_no_part_of_a_slug(gateway, host):
    for at in (BASE, host):
        link = gateway.link(at)
        for end in ("/", ".", ",", ")", ").", "%20", "./"):
            gateway.becomes(at, f"/{link['slug']}{end}", (302, link["long_url"]))
    for path in ("/docs/", "/metrics.", "/api/", "/healthz)", "/%20", "/.", "//"):
        assert gateway.visit(BASE, path)[0] == 404, path


def test_visits_are_counted_by_domain(gateway, host):
    name = slug()
    for at in (BASE, host):
        gateway.link(at, slug=name)
    for at, visits in ((BASE, 3), (host, 5)):
        for _ in range(visits):
            assert gateway.visit(at, f"/{name}")[0] == 302
        assert gateway.visit(at, f"/{name}", "HEAD")[0] == 302

    def counts() -> list[int]:
        links = (gateway.api.get(f"{LINKS}/{name}", params={"domain": at}).json() for at in (BASE, host))
        return [link["visits"] for link in links]

    eventually(lambda: counts() == [3, 5], 10, "the visits are counted")


def test_blocked_slug_is_blocked_in_every_domain(gateway, host):
    name = slug()
    links = {at: gateway.link(at, slug=name) for at in (BASE, host)}
    for at, link in links.items():
        gateway.becomes(at, f"/{name}", (302, link["long_url"]))

    assert gateway.api.post("/api/v1/blocks", json={"slugs": [name]}).status_code == 200
    for at in links:
        eventually(lambda at=at: gateway.visit(at, f"/{name}")[0] == 451, 5, f"{at}/{name} is blocked")
    assert gateway.api.delete(f"/api/v1/blocks/slugs/{name}").status_code == 204
    for at, link in links.items():
        gateway.becomes(at, f"/{name}", (302, link["long_url"]))


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


def test_blocked_slug_has_no_case_where_slugs_have_none(gateway):
    host, name = gateway.domain(case_sensitive=False), f"Promo{secrets.token_hex(4)}"
    link = gateway.link(host, slug=f"{name}x")
    assert gateway.api.post("/api/v1/blocks", json={"slugs": [name, f"{name}X"]}).status_code == 200

    for spelled in (name, name.lower(), name.upper()):
        answer = gateway.api.post(LINKS, json={"long_url": TARGET, "slug": spelled, "domain": host})
        assert problem(answer, 422, "invalid")["errors"][0]["code"] == "slug_blocked"
    eventually(lambda: gateway.visit(host, f"/{link['slug']}")[0] == 451, 5, "it is blocked")
    # Where slugs have case, another spelling is another link.
    assert gateway.link(slug=name.upper())["slug"] == name.upper()
    for blocked in (name, f"{name}X"):
        assert gateway.api.delete(f"/api/v1/blocks/slugs/{blocked}").status_code == 204


def test_upsert_keeps_the_domain(gateway, host):
    external_id = secrets.token_hex(6)
    holder = gateway.link(slug=slug(), external_id=external_id)
    item = {"long_url": TARGET, "external_id": external_id, "title": "x"}

    def upsert(**more: object) -> dict:
        answer = gateway.api.post(
            f"{LINKS}/bulk", json={"links": [{**item, **more}], "upsert": "external_id"}
        )
        return answer.json()["results"][0]

    for more in ({"domain": host}, {"domain": host, "slug": holder["slug"]}):
        refused = upsert(**more)
        assert (refused["status"], refused["error"]["code"]) == (409, "slug_fixed")
        assert holder["short_url"] in refused["error"]["detail"]
    assert upsert()["status"] == 200
    assert upsert(domain=BASE)["status"] == 200


def test_host_decides_only_if_it_is_valid(gateway, host):
    """Of several hosts, or of one that cannot be read, none is right."""
    name = slug()
    gateway.link(host, slug=name)
    gateway.becomes(host, f"/{name}", (302, gateway.visit(host, f"/{name}")[1]))
    for head in (
        f"Host: {host}\r\nHost: {BASE}\r\n",
        f"Host: {host}:abc\r\n",
        "",
        f"Host: user@{host}\r\n",
    ):
        request = f"GET /{name} HTTP/1.1\r\n{head}Connection: close\r\n\r\n"
        assert answered(gateway.port, request.encode()).status == 400, head


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


def test_command_line_knows_domains(gateway):
    host = f"d{secrets.token_hex(6)}.example"

    def run(*arguments: str, code: int = 0) -> str:
        done = hopgate(gateway.settings, *arguments)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    assert json.loads(run("domains", "add", host, "--root-url", TARGET, "--json"))["root_url"] == TARGET
    assert "is a domain already" in run("domains", "add", host, code=1)
    short = run("links", "create", f"{TARGET}cli", "--slug", "cli", "--domain", host).strip()
    assert short == f"https://{host}/cli"
    assert json.loads(run("links", "get", "cli", "--domain", host))["domain"] == host
    assert f"{host}/cli" in run("links", "list", "--domain", host)
    assert "cli" not in run("links", "list", "--domain", BASE, "--limit", "1000").split()
    gateway.becomes(host, "/cli", (302, f"{TARGET}cli"))
    run("links", "edit", "cli", "--domain", host, "--title", "x")
    assert "visits in total" in run("links", "stats", "cli", "--domain", host)
    assert "no domain of this service" in run("links", "get", "cli", "--domain", "none.example", code=1)
    assert "has links, cli among them" in run("domains", "remove", host, code=1)
    run("links", "delete", "cli", "--domain", host)
    run("domains", "remove", host)
    assert host not in run("domains", "list")


def test_export_and_import_keep_domains(gateway, tmp_path):
    host, other = gateway.domain(), gateway.domain()
    name = slug()
    for at in (None, host):
        gateway.link(at, slug=name, title=f"of {at}")
    for form in ("jsonl", "csv"):
        file = tmp_path / f"links.{form}"
        assert (
            hopgate(gateway.settings, "links", "export", "--format", form, "--output", str(file)).returncode
            == 0
        )
        again = hopgate(gateway.settings, "links", "import", str(file), "--json")
        report = json.loads(again.stdout)
        assert (report["refused"], report["imported"], report["updated"]) == (0, 0, 0), report
        # A service that has not the domain refuses its links, and no others.
        fresh = {
            **gateway.settings,
            "HOPGATE_DATA_DIR": str(tmp_path / form),
            "HOPGATE_BASE_URL": "https://x.example",
        }
        make_key(fresh)
        report = json.loads(hopgate(fresh, "links", "import", str(file), "--json").stdout)
        assert report["refused"] > 0
        assert {one["code"] for one in report["reasons"]} == {"domain_unknown"}
        assert hopgate(fresh, "links", "get", name).returncode == 0
    plain = tmp_path / "plain.csv"
    plain.write_text("slug,long_url\nplain,https://example.com/plain\n")
    done = hopgate(gateway.settings, "links", "import", str(plain), "--domain", other)
    assert done.returncode == 0, done.stderr
    gateway.becomes(other, "/plain", (302, "https://example.com/plain"))
    # A host that is served here decides in every format.
    for at in (host, host.upper(), f"{host}."):
        name = slug()
        plain.write_text(f"slug,domain,long_url\n{name},{at},https://example.com/{name}\n")
        assert hopgate(gateway.settings, "links", "import", str(plain)).returncode == 0
        gateway.becomes(host, f"/{name}", (302, f"https://example.com/{name}"))


def test_redirects_of_domains_are_counted_once(gateway):
    host = gateway.domain(**PAGES)
    link = gateway.link(host)

    def answered() -> float:
        return total(gateway, "hopgate_redirects_total")

    gateway.becomes(host, f"/{link['slug']}", (302, link["long_url"]))
    before = answered()
    for _ in range(4):
        gateway.visit(host, f"/{link['slug']}")
        gateway.visit(host, "/nothing")
        gateway.visit(host, "/nothing.html")
        gateway.visit(host, "/")
    eventually(lambda: answered() - before == 16, 10, "each is counted once")
