"""What domains say of the slugs of their links, on an embedded gateway with and without the front."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from subprocess import CompletedProcess
from urllib.parse import quote

import httpx
import pytest

from tests.integration.api_calls import LINKS, problem
from tests.integration.domain_gateway import BASE, DOMAINS, TARGET, Serving, serving, slug
from tests.integration.front_gateway import ALONE, FRONT, OWN_NAME
from tests.servers.hopgate import eventually, hopgate


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Serving]:
    dialects = {"HOPGATE_DIALECTS": "bitly shlink yourls"}
    yield from serving({**request.param, **dialects}, tmp_path_factory.mktemp("slugs"))


@pytest.fixture(scope="module")
def host(gateway) -> str:
    return gateway.domain(multi_segment=True)


def path_of(name: str) -> str:
    return f"{LINKS}/{name.replace('/', '%2F')}"


def test_slug_of_several_segments_is_visited(gateway, host):
    name = f"promo/{slug()}/spring"
    link = gateway.link(host, slug=name)

    assert link["short_url"] == f"https://{host}/{name}"
    encoded, lower = name.replace("/", "%2F"), name.replace("/", "%2f")
    for _ in range(2):  # looked up, and from the L1 cache
        for path in (name, encoded, lower, f"{name}/", f"{name}.", f"{encoded}%20", f"{name}/),"):
            gateway.becomes(host, f"/{path}", (302, link["long_url"]))
    for path in (f"/{name}", name.partition("/")[0], f"{name}/x", name.replace("/", "//")):
        assert gateway.visit(host, f"/{path}")[0] == 404
    assert gateway.visit(BASE, f"/{name}")[0] == 404
    eventually(lambda: count(gateway, host, name) >= 14, 30, "every visit is counted")
    if gateway.settings["HOPGATE_FRONT"] == "on":
        answer = gateway.api.get(f"/{name}", headers={"Host": host})
        assert answer.headers["server"] == OWN_NAME


def test_what_follows_a_slug_of_several_segments(gateway, host):
    name = f"look/{slug()}"
    link = gateway.link(host, slug=name)

    for path in (f"/{name}+", f"/{name}%2B", f"/{name.replace('/', '%2F')}+", f"/{name}+/", f"/{name}+."):
        page = gateway.api.get(path, headers={"Host": host})
        assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8"), path
        assert link["long_url"] in page.text
    for ending, media_type in ((".qr", "image/svg+xml"), (".qr.png", "image/png")):
        code = gateway.api.get(f"/{name}{ending}", headers={"Host": host})
        assert (code.status_code, code.headers["content-type"]) == (200, media_type)
    assert gateway.api.get(f"/{name}x+", headers={"Host": host}).status_code == 404
    assert gateway.api.get(f"/{name}+", headers={"Host": BASE}).status_code == 404
    assert count(gateway, host, name) == 0


def count(gateway: Serving, host: str, name: str) -> int:
    return gateway.api.get(path_of(name), params={"domain": host}).json()["visits"]


def test_api_addresses_a_slug_of_several_segments(gateway, host):
    name, at = f"a/{slug()}", {"domain": host}
    created = gateway.api.post(LINKS, json={"long_url": TARGET, "slug": name, **at})
    link = created.json()

    assert gateway.api.get(created.headers["location"]).json() == link
    # As a proxy sends it that decodes what it passes on.
    for path in (path_of(name), f"{LINKS}/{name}"):
        assert gateway.api.get(path, params=at).json() == link
    changed = gateway.api.patch(path_of(name), params=at, json={"title": "other"})
    assert (changed.status_code, changed.json()["title"]) == (200, "other")
    history = gateway.api.get(f"{path_of(name)}/history", params=at).json()
    assert (history["slug"], len(history["changes"])) == (name, 1)
    assert gateway.api.get(f"{path_of(name)}/stats", params=at).json()["slug"] == name
    assert gateway.api.post(f"{path_of(name)}/undo", params=at).json()["title"] == ""
    done = gateway.api.post("/api/v1/cache/invalidate", json={"slugs": [name, "no/such"], **at})
    assert done.json() == {"invalidated": 1, "unknown": ["no/such"]}
    bulk = gateway.api.patch(f"{LINKS}/bulk", json={"links": [{"slug": name, "title": "b", **at}]})
    assert bulk.json()["results"][0]["link"]["title"] == "b"
    assert gateway.api.delete(path_of(name), params=at).status_code == 204
    problem(gateway.api.get(path_of(name), params=at), 410, "gone")
    gateway.becomes(host, f"/{name}", (410, None))
    problem(gateway.api.get(f"{LINKS}/a/none", params=at), 404, "not_found")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(
            (bad, "slug_malformed")
            for bad in ("/a/b", "a/b/", "a//b", "a/./b", "a/../b", "a/b c", "a%2Fb", "a/é")
        ),
        *(
            (bad, "slug_reserved")
            for bad in ("api/v1", "API/x", "Docs/x", "bulk/x", "status/x", "x/stats", "x/y/Undo")
        ),
        ("/".join(["a"] * 60), "slug_malformed"),
    ],
)
def test_other_paths_are_no_slugs(gateway, host, name, code):
    answer = gateway.api.post(LINKS, json={"long_url": TARGET, "slug": name, "domain": host})

    error = problem(answer, 422, "invalid")["errors"][0]
    assert (error["field"], error["code"]) == ("slug", code)


def test_route_goes_before_a_slug_of_several_segments(gateway, host):
    """At the default domain as at others, and so no link can have it."""
    assert gateway.api.patch(f"{DOMAINS}/{BASE}", json={"multi_segment": True}).status_code == 200
    try:
        for at in (host, BASE):
            for path, status in (
                ("rest/health", 200),
                ("rest/v3/short-urls/none", 401),
                ("v4/user", 403),
                ("v4/shorten", 405),
                ("v4/bitlinks/hop.example/none", 403),
                ("v4/none", 404),
            ):
                for _ in range(2):  # nothing is kept of it
                    found = httpx.get(f"{gateway.url}/{path}", headers={"Host": at})
                    assert found.status_code == status, path
                body = {"long_url": TARGET, "slug": path.replace(".", ""), "domain": at}
                error = problem(gateway.api.post(LINKS, json=body), 422, "invalid")["errors"][0]
                assert (error["field"], error["code"]) == ("slug", "slug_reserved")
    finally:
        gateway.api.patch(f"{DOMAINS}/{BASE}", json={"multi_segment": False})


@pytest.mark.parametrize("name", ["a/{}", "{}é", "é/{}/🎉"])
def test_dialects_find_every_kind_of_slug(gateway, name):
    host = gateway.domain(multi_segment=True, unicode=True)
    link = gateway.link(host, slug=name.format(slug()))
    path, key = quote(link["slug"], safe=""), gateway.api.headers["Authorization"].removeprefix("Bearer ")

    found = gateway.api.get(
        f"/rest/v3/short-urls/{path}", params={"domain": host}, headers={"X-Api-Key": key}
    )
    assert (found.status_code, found.json().get("longUrl")) == (200, link["long_url"])
    short = link["short_url"].partition("://")[2]
    for address in (short, f"{host}/{link['slug']}"):
        found = gateway.api.post("/v4/expand", json={"bitlink_id": address})
        assert found.json().get("long_url") == link["long_url"]
        asked = {"action": "expand", "format": "simple", "signature": key, "shorturl": f"https://{address}"}
        assert gateway.api.get("/yourls-api.php", params=asked).text == link["long_url"]
    if "/" not in name:
        assert gateway.api.get(f"/v4/bitlinks/{host}/{path}").json().get("long_url") == link["long_url"]


def test_domain_without_the_setting_refuses_segments(gateway):
    other = gateway.domain()

    for at in (other, None):
        body = {"long_url": TARGET, "slug": "a/b", **({"domain": at} if at else {})}
        error = problem(gateway.api.post(LINKS, json=body), 422, "invalid")["errors"][0]
        assert (error["field"], error["code"]) == ("slug", "slug_segments")
    bulk = gateway.api.post(f"{LINKS}/bulk", json={"links": [body]}).json()["results"][0]
    assert bulk["error"]["errors"][0]["code"] == "slug_segments"
    assert gateway.visit(other, "/a/b")[0] == 404


def test_setting_that_ends_leaves_its_links(gateway):
    host = gateway.domain(multi_segment=True)
    link = gateway.link(host, slug=f"kept/{slug()}")
    assert (
        gateway.api.patch(f"{DOMAINS}/{host}", json={"multi_segment": False}).json()["multi_segment"] is False
    )

    answer = gateway.api.post(LINKS, json={"long_url": TARGET, "slug": "new/one", "domain": host})
    assert problem(answer, 422, "invalid")["errors"][0]["code"] == "slug_segments"
    gateway.becomes(host, f"/{link['slug']}", (302, link["long_url"]))
    changed = gateway.api.patch(
        path_of(link["slug"]), params={"domain": host}, json={"long_url": f"{TARGET}x"}
    )
    assert changed.status_code == 200
    gateway.becomes(host, f"/{link['slug']}", (302, f"{TARGET}x"))


def test_default_domain_may_have_segments(gateway):
    name = f"a/{slug()}"
    assert gateway.visit(BASE, f"/{name}")[0] == 404
    assert gateway.api.patch(f"{DOMAINS}/{BASE}", json={"multi_segment": True}).status_code == 200
    try:
        link = gateway.link(slug=name)
        for _ in range(2):
            gateway.becomes(BASE, f"/{name}", (302, link["long_url"]))
        assert gateway.api.get(path_of(name)).json()["domain"] == BASE
        for path in ("/api/v1/nothing", "/api/v1/links/", "/docs/x"):
            assert gateway.visit(BASE, path)[0] == 404
    finally:
        gateway.api.patch(f"{DOMAINS}/{BASE}", json={"multi_segment": False})


def test_slugs_without_case_have_segments(gateway):
    host = gateway.domain(multi_segment=True, case_sensitive=False)
    link = gateway.link(host, slug=f"Promo/{slug().upper()}")

    assert link["slug"] == link["slug"].lower()
    for path in (link["slug"], link["slug"].upper(), link["slug"].upper().replace("/", "%2f")):
        gateway.becomes(host, f"/{path}", (302, link["long_url"]))
    shown = gateway.api.get(path_of(link["slug"].upper()), params={"domain": host}).json()
    assert {**shown, "visits": 0} == link


def test_segments_are_blocked(gateway, host):
    link = gateway.link(host, slug=f"a/{slug()}")
    gateway.becomes(host, f"/{link['slug']}", (302, link["long_url"]))

    blocked = gateway.api.post("/api/v1/blocks", json={"slugs": [link["slug"]]})
    assert blocked.json() == {"added": 1, "present": 0}
    eventually(lambda: gateway.visit(host, f"/{link['slug']}")[0] == 451, 30, "it is blocked")
    path = f"/api/v1/blocks/slugs/{link['slug'].replace('/', '%2F')}"
    assert gateway.api.delete(path).status_code == 204
    gateway.becomes(host, f"/{link['slug']}", (302, link["long_url"]))


def test_command_line_and_files_have_segments(gateway, host, tmp_path):
    name = f"a/{slug()}"

    def run(*words: str) -> CompletedProcess[str]:
        return hopgate(gateway.settings, *words)

    made = run("links", "create", f"{TARGET}cli", "--slug", name, "--domain", host)
    assert made.stdout.strip() == f"https://{host}/{name}"
    gateway.becomes(host, f"/{name}", (302, f"{TARGET}cli"))
    assert name in run("links", "get", name, "--domain", host).stdout
    other = gateway.domain()
    file = tmp_path / "links.csv"
    file.write_text(
        f"domain,slug,long_url\n{host},in/{name},{TARGET}\n{other},in/{name},{TARGET}\n{host},single,{TARGET}\n"
    )
    done = run("links", "import", str(file))
    assert "slug_segments" in done.stdout + done.stderr or "several segments" in done.stdout + done.stderr
    gateway.becomes(host, f"/in/{name}", (302, TARGET))
    assert gateway.visit(other, f"/in/{name}")[0] == 404
    written = tmp_path / "out.csv"
    assert run("links", "export", "--format", "csv", "--output", str(written)).returncode == 0
    assert f",in/{name}," in written.read_text() or f"\nin/{name}," in written.read_text()


def test_redirect_code_of_a_domain_is_that_of_its_new_links(gateway):
    host = gateway.domain(redirect_code=301)
    link, own = gateway.link(host), gateway.link(host, redirect_code=307)
    bulk = {"links": [{"long_url": TARGET, "domain": host}]}
    [made] = gateway.api.post(f"{LINKS}/bulk", json=bulk).json()["results"]

    assert (link["redirect_code"], own["redirect_code"], made["link"]["redirect_code"]) == (301, 307, 301)
    gateway.becomes(host, f"/{link['slug']}", (301, link["long_url"]))
    made = hopgate(gateway.settings, "links", "create", TARGET, "--domain", host, "--json")
    assert '"redirect_code": 301' in made.stdout
    assert gateway.link()["redirect_code"] == 302


def test_length_of_random_slugs(gateway):
    host, low = gateway.domain(slug_length=12), gateway.domain(slug_length=20, case_sensitive=False)

    assert (len(gateway.link(host)["slug"]), len(gateway.link(low)["slug"])) == (12, 20)
    assert gateway.api.patch(f"{DOMAINS}/{host}", json={"slug_length": None}).json()["slug_length"] is None
    assert len(gateway.link(host)["slug"]) == 7


def test_robots_txt_is_that_of_the_host(gateway):
    host = gateway.domain(robots="disallow")

    def robots(at: str) -> str:
        answer = gateway.api.get("/robots.txt", headers={"Host": at})
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/plain; charset=utf-8")
        return answer.text

    assert robots(host) == "User-agent: *\nDisallow: /\n"
    assert robots(BASE) == "User-agent: *\nAllow: /\nDisallow: /api/\n"
    done = hopgate(gateway.settings, "domains", "edit", host, "--robots", "allow")
    assert done.returncode == 0, done.stderr
    eventually(lambda: robots(host) == robots(BASE), 30, "crawlers may follow its links")


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"slug_length": 4}, "slug_length_invalid"),
        ({"slug_length": 33}, "slug_length_invalid"),
        ({"redirect_code": 200}, "redirect_code_invalid"),
        ({"robots": "maybe"}, "schema"),
        ({"multi_segment": None}, "schema"),
    ],
)
def test_wrong_setting_is_refused(gateway, host, settings, code):
    for answer in (
        gateway.api.patch(f"{DOMAINS}/{host}", json=settings),
        gateway.api.post(DOMAINS, json={"host": f"x{secrets.token_hex(4)}.example", **settings}),
    ):
        error = problem(answer, 422, "invalid")["errors"][0]
        assert (error["field"], error["code"]) == (next(iter(settings)), code)
