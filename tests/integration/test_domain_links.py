"""Links of several domains, on an embedded gateway with and without the front."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.integration.api_calls import LINKS, problem
from tests.integration.domain_gateway import BASE, DOMAINS, TARGET, Serving, serving, slug
from tests.integration.front_gateway import ALONE, FRONT, OWN_NAME
from tests.servers.hopgate import eventually, hopgate, make_key
from tests.servers.raw_http import answered


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Serving]:
    yield from serving(request.param, tmp_path_factory.mktemp("domains"))


@pytest.fixture(scope="module")
def host(gateway) -> str:
    return gateway.domain()


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
    shown = gateway.api.get(f"{LINKS}/SPRING-SALE", params={"domain": host}).json()
    # The visits may be counted by now.
    assert {**shown, "visits": 0} == link
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


def test_pasted_ends_are_no_part_of_a_slug(gateway, host):
    for at in (BASE, host):
        link = gateway.link(at)
        for end in (
            "/",
            ".",
            ",",
            ")",
            ").",
            "%20",
            "./",
            ";",
            "!",
            ":",
            "'",
            "%22",
            "%3E",
            "%3F",
            "*",
            "%0A",
            "!%22)",
        ):
            gateway.becomes(at, f"/{link['slug']}{end}", (302, link["long_url"]))
        for end in "…’”“»«—。）\u00a0\u200b\ufeff":
            gateway.becomes(at, f"/{link['slug']}{quote(end)}", (302, link["long_url"]))
        assert gateway.visit(at, f"/{link['slug']}+!")[0] == 200
        for end in ("%00", "%7F", "&", "=", "@", "(", "%3C", "$", "~"):
            assert gateway.visit(at, f"/{link['slug']}{end}")[0] == 404, end
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
        eventually(lambda at=at: gateway.visit(at, f"/{name}")[0] == 451, 30, f"{at}/{name} is blocked")
    assert gateway.api.delete(f"/api/v1/blocks/slugs/{name}").status_code == 204
    for at, link in links.items():
        gateway.becomes(at, f"/{name}", (302, link["long_url"]))


def test_blocked_slug_has_no_case_where_slugs_have_none(gateway):
    host, name = gateway.domain(case_sensitive=False), f"Promo{secrets.token_hex(4)}"
    link = gateway.link(host, slug=f"{name}x")
    assert gateway.api.post("/api/v1/blocks", json={"slugs": [name, f"{name}X"]}).status_code == 200

    for spelled in (name, name.lower(), name.upper()):
        answer = gateway.api.post(LINKS, json={"long_url": TARGET, "slug": spelled, "domain": host})
        assert problem(answer, 422, "invalid")["errors"][0]["code"] == "slug_blocked"
    eventually(lambda: gateway.visit(host, f"/{link['slug']}")[0] == 451, 30, "it is blocked")
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
    link = gateway.link(host, slug=name)
    gateway.becomes(host, f"/{name}", (302, link["long_url"]))
    for head in (
        f"Host: {host}\r\nHost: {BASE}\r\n",
        f"Host: {host}:abc\r\n",
        "",
        f"Host: user@{host}\r\n",
    ):
        request = f"GET /{name} HTTP/1.1\r\n{head}Connection: close\r\n\r\n"
        assert answered(gateway.port, request.encode()).status == 400, head


def test_host_of_the_target_wins(gateway, host):
    """RFC 9112 3.2.2; proxies write such targets."""
    name = slug()
    links = {at: gateway.link(at, slug=name)["long_url"] for at in (BASE, host)}
    for at, other in ((BASE, host), (host, BASE)):
        for version, head in (("1.1", f"Host: {other}\r\n"), ("1.0", "")):
            for named in (at, f"{at.upper()}:80", f"u:p@{at}", f"{at}."):
                request = f"GET http://{named}/{name} HTTP/{version}\r\n{head}Connection: close\r\n\r\n"
                for _ in range(2):
                    assert answered(gateway.port, request.encode()).header("location") == links[at], request


def test_search_finds_slugs_and_no_numbers_of_domains(gateway, host):
    link = gateway.link(host, slug=f"find-{secrets.token_hex(4)}")

    def found(term: str) -> list[str]:
        page = gateway.api.get(LINKS, params={"search": term, "limit": 200}).json()
        return [one["short_url"] for one in page["links"]]

    assert found(link["slug"]) == [link["short_url"]]
    assert [found(f"~{domain}~") for domain in range(1, 30)] == [[]] * 29


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
    assert "in total" in run("links", "stats", "cli", "--domain", host)
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
