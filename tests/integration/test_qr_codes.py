"""QR codes of links: `/{slug}.qr`, the API and the command; an independent decoder reads each."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from app.web.after_slug import DRAWING_COST
from tests.integration.api_calls import LINKS, problem
from tests.integration.domain_gateway import BASE, PAGES, Serving, serving, slug
from tests.integration.front_gateway import ALONE, FRONT, total
from tests.qr_reader import of_blocks, read, read_image
from tests.servers import browser
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_key, make_store

BOTH = pytest.mark.parametrize("front", [ALONE, FRONT], ids=["alone", "front"])
ROOT = Path(__file__).parents[2]
SVG, PNG = "image/svg+xml", "image/png"


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Serving]:
    yield from serving(request.param, tmp_path_factory.mktemp("qr"))


def fetched(gateway: Serving, path: str, host: str = BASE, **headers: str) -> httpx.Response:
    return gateway.api.get(path, headers={"Host": host, **headers})


@pytest.mark.parametrize(
    ("end", "media_type"),
    [
        *((".qr", SVG), (".qr.svg", SVG), (".qr.png", PNG)),
        *((".qr?format=png&size=9999", SVG), (".qr.", SVG), (".qr.png/", PNG), ("%2Eqr", SVG)),
    ],
)
def test_code_is_an_image(gateway, end, media_type):
    name = gateway.link()["slug"]

    answer = fetched(gateway, f"/{name}{end}")

    assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
    assert answer.headers["cache-control"] == "public, max-age=86400"
    assert answer.headers["content-disposition"].startswith(f'inline; filename="{name}.')
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.content.startswith(b"<svg " if media_type == SVG else b"\x89PNG")


def test_code_leads_to_the_link(gateway):
    host = gateway.domain(case_sensitive=False)
    for at in (None, host):
        link = gateway.link(at)
        answer = fetched(gateway, f"/{link['slug']}.qr.png", at or BASE)
        assert read(answer.content) == link["short_url"]
    assert fetched(gateway, f"/{link['slug'].upper()}.qr.png", host).content == answer.content


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/b", 'filename="{}a-b.svg"'),
        ("café/été", "filename=\"{0}caf_-_t_.svg\"; filename*=UTF-8''{0}caf%C3%A9-%C3%A9t%C3%A9.svg"),
        ("🎉", "filename=\"{0}_.svg\"; filename*=UTF-8''{0}%F0%9F%8E%89.svg"),
    ],
)
def test_file_of_a_code_has_the_name_of_its_link(gateway, name, shown):
    """As RFC 6266 and RFC 8187 write it, whatever the slug has."""
    host, mark = gateway.domain(multi_segment=True, unicode=True), slug()
    link = gateway.link(host, slug=f"{mark}{name}")

    public = fetched(gateway, f"/{link['slug']}.qr", host)
    styled = drawn(gateway, quote(link["slug"], safe=""), f"?domain={host}")

    for answer in (public, styled):
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-disposition"] == f"inline; {shown.format(mark)}"


def test_client_that_holds_the_code_gets_it_once(gateway):
    name = gateway.link()["slug"]
    first = fetched(gateway, f"/{name}.qr")

    again = fetched(gateway, f"/{name}.qr", **{"If-None-Match": first.headers["etag"]})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["cache-control"] == first.headers["cache-control"]
    assert fetched(gateway, f"/{name}.qr.png", **{"If-None-Match": first.headers["etag"]}).status_code == 200
    assert gateway.api.delete(f"{LINKS}/{name}").status_code == 204
    eventually(lambda: fetched(gateway, f"/{name}").status_code == 410, 30, "it is gone")
    problem(fetched(gateway, f"/{name}.qr", **{"If-None-Match": first.headers["etag"]}), 410, "gone")


def test_link_that_does_not_redirect_has_no_code(gateway):
    """So that a code tells no more than a visit."""
    host = gateway.domain(**PAGES)
    gone = gateway.link(enabled=False)["slug"]
    for name, status in ((slug(), 404), (gone, 410)):
        visit, code = fetched(gateway, f"/{name}"), fetched(gateway, f"/{name}.qr")
        assert (code.status_code, code.content) == (visit.status_code, visit.content)
        assert code.status_code == status
    gateway.becomes(host, f"/{slug()}.qr", (302, PAGES["not_found_url"]))
    for path in ("/.qr", "/a b.qr", f"/{gone}.qr.gif", f"/{gone}.qr.qr", f"/{gone}.QR", f"/{gone}qr"):
        problem(fetched(gateway, path), 404, "not_found")


def test_code_is_no_visit(gateway):
    link = gateway.link(max_visits=1)
    for _ in range(3):
        assert fetched(gateway, f"/{link['slug']}.qr").status_code == 200

    assert gateway.visit(BASE, f"/{link['slug']}") == (302, link["long_url"])
    problem(fetched(gateway, f"/{link['slug']}.qr"), 410, "gone")


def test_code_is_a_route_of_its_own(gateway):
    name = gateway.link()["slug"]
    before = total(gateway, "http_server_requests_total", route="/{slug}.qr", status="200")

    fetched(gateway, f"/{name}.qr.png")

    assert total(gateway, "http_server_requests_total", route="/{slug}.qr", status="200") == before + 1


@BOTH
def test_code_that_has_to_be_drawn_costs_more(front, tmp_path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), **UNLIMITED, **front}
    make_store(settings)
    for name in ("one", "two"):
        assert hopgate(settings, "links", "create", "https://example.com/", "--slug", name).returncode == 0
    settings["HOPGATE_LIMIT_REDIRECT"] = f"1/day burst {DRAWING_COST + 3}"
    with Gateway(settings, tmp_path) as gateway, httpx.Client(base_url=gateway.url) as client:
        statuses = [
            client.get(path).status_code for path in ("/one.qr", "/one.qr", "/two.qr", "/two", "/one.qr")
        ]
        assert statuses == [200, 200, 429, 302, 200]
        assert client.get("/one").status_code == 429


@BOTH
def test_base_url_with_a_path(front, tmp_path):
    base = {"HOPGATE_BASE_URL": "https://hop.example/go"}
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), **UNLIMITED, **front, **base}
    make_store(settings)
    assert hopgate(settings, "links", "create", "https://example.com/", "--slug", "sale").returncode == 0
    with Gateway(settings, tmp_path) as gateway, httpx.Client(base_url=gateway.url) as client:
        for path in ("/go/sale", "/sale"):  # a proxy may have removed it
            assert read(client.get(f"{path}.qr.png").content) == "https://hop.example/go/sale"
            assert "https://hop.example/go/sale" in client.get(f"{path}+").text


# --- the API ----------------------------------------------------------------------------


def drawn(gateway: Serving, name: str, query: str = "", **headers: str) -> httpx.Response:
    return gateway.api.get(f"{LINKS}/{name}/qr{query}", headers=headers)


def test_api_draws_in_the_style_that_is_asked_for(gateway):
    host = gateway.domain()
    for at, domain in ((None, ""), (host, f"&domain={host}")):
        link = gateway.link(at)
        query = f"?format=png&size=300&margin=2&color=%231b3a5c&background=fff8e7&error_correction=H{domain}"
        answer = drawn(gateway, link["slug"], query)
        assert (answer.status_code, answer.headers["content-type"]) == (200, PNG)
        assert answer.headers["cache-control"] == "private, max-age=86400"
        assert read(answer.content) == link["short_url"]
        held = drawn(gateway, link["slug"], query, **{"If-None-Match": answer.headers["etag"]})
        assert (held.status_code, held.content) == (304, b"")
        assert drawn(gateway, link["slug"], domain.replace("&", "?")).headers["content-type"] == SVG


def test_api_draws_links_that_do_not_redirect_yet(gateway):
    """Posters are printed before a campaign begins."""
    link = gateway.link(valid_from="2999-01-01T00:00:00Z", enabled=False)

    assert read(drawn(gateway, link["slug"], "?format=png").content) == link["short_url"]


@pytest.mark.parametrize(
    ("query", "field", "code"),
    [
        ("format=gif", "format", "format_unknown"),
        ("size=63", "size", "size_invalid"),
        ("size=1e9", "size", "size_invalid"),
        ("margin=-1", "margin", "margin_invalid"),
        ("color=red", "color", "color_invalid"),
        ("color=eeeeee", "color", "color_contrast"),
        ("color=", "color", "color_invalid"),
        ("color=ffffff&background=000000", "color", "color_inverted"),
        ("error_correction=X", "error_correction", "error_correction_unknown"),
        ("size=64&error_correction=H&margin=16", "size", "size_small"),
        ("logos=x", "logos", "unknown_parameter"),
        ("logo=true", "logo", "logo_missing"),
        ("size=100&size=200", "size", "repeated_parameter"),
        ("domain=nowhere.example", None, None),
    ],
)
def test_api_refuses_what_cannot_be_drawn(gateway, query, field, code):
    answer = drawn(gateway, gateway.link()["slug"], f"?{query}")

    if field is None:
        problem(answer, 404, "not_found")
        return
    [error] = problem(answer, 422, "invalid")["errors"]
    assert (error["field"], error["code"]) == (field, code)


def test_api_has_no_code_of_a_link_that_is_not_there(gateway):
    removed = gateway.link()["slug"]
    gateway.api.delete(f"{LINKS}/{removed}")

    problem(drawn(gateway, slug()), 404, "not_found")
    problem(drawn(gateway, "a.b"), 404, "not_found")
    problem(drawn(gateway, removed), 410, "gone")
    key = make_key(gateway.settings, "links:write")
    problem(drawn(gateway, removed, Authorization=f"Bearer {key}"), 403, "forbidden")


def test_request_of_the_manual_draws(gateway, tmp_path):
    manual = (ROOT / "docs/preview-and-qr.md").read_text()
    [command] = re.findall(r"^```sh\n(curl .*?)^```$", manual, re.MULTILINE | re.DOTALL)
    link = gateway.link(slug="sale")
    key = gateway.api.headers["Authorization"].removeprefix("Bearer ")

    shell = ["bash", "-c", f"{command.strip()} --silent --fail --connect-to ::127.0.0.1:{gateway.port}"]
    environment = {"HOPGATE_KEY": key, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(shell, env=environment, cwd=tmp_path, capture_output=True, timeout=30)

    assert done.returncode == 0, done.stderr
    assert read((tmp_path / "sale.png").read_bytes()) == link["short_url"]


# --- the command ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> dict[str, str]:
    data = tmp_path_factory.mktemp("stored") / "data"
    settings = {"HOPGATE_DATA_DIR": str(data), "HOPGATE_BASE_URL": "https://hop.example"}
    make_store(settings)
    assert hopgate(settings, "links", "create", "https://example.com/", "--slug", "sale").returncode == 0
    return settings


def test_command_writes_a_file(cli, stored, tmp_path):
    png, svg = tmp_path / "sale.png", tmp_path / "sale.SVG"
    done = cli(stored, "links", "qr", "sale", "--output", str(png), "--size", "300", "--color", "#1b3a5c")
    assert (done.returncode, done.stdout) == (0, f"{png}\n"), done.stderr
    assert cli(stored, "links", "qr", "sale", "--output", str(svg)).returncode == 0

    assert read(png.read_bytes()) == "https://hop.example/sale"
    assert svg.read_bytes().startswith(b"<svg ")


def test_commands_of_the_manual_draw(cli, stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manual = (ROOT / "docs/preview-and-qr.md").read_text()
    commands = re.findall(r"^hopgate (.*)$", manual, re.MULTILINE)
    assert len(commands) == 3

    for command in commands:
        done = cli(stored, *command.split())
        assert done.returncode == 0, (command, done.stderr)
    assert {file.name for file in tmp_path.iterdir()} == {"sale.svg", "sale.png"}
    assert read((tmp_path / "sale.png").read_bytes()) == "https://hop.example/sale"


def test_command_draws_in_the_terminal(cli, stored):
    done = cli(stored, "links", "qr", "sale", "--error-correction", "L")

    *blocks, url = done.stdout.strip("\n").split("\n")
    assert url == "https://hop.example/sale"
    assert read_image(of_blocks("\n".join(blocks))) == url
    assert max(map(len, blocks)) <= 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "there is no link nothing"),
        (["sale", "--color", "eeeeee", "--output", "{}/x.png"], "contrast"),
        (["sale", "--size", "5", "--output", "{}/x.png"], "size"),
        (["sale", "--margin", "99"], "margin"),
        (["sale", "--error-correction", "Z"], "error_correction"),
        (["sale", "--output", "{}/x.gif"], "must end in .svg or .png"),
        (["sale", "--output", "{}/none/x.png"], "cannot be written"),
        (["sale", "--domain", "go.example"], "domain"),
    ],
)
def test_command_says_what_is_wrong(cli, stored, tmp_path, arguments, message):
    done = cli(stored, "links", "qr", *(one.format(tmp_path) for one in arguments))

    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(bool(browser.missing()), reason=f"{browser.missing()}: not installed")
def test_browser_draws_the_same_from_svg(tmp_path):
    """What Chromium makes of the SVG is read by the decoder, light and dark."""
    for gateway in serving({}, tmp_path):
        link = gateway.link(slug="spring-sale")
        styled = drawn(gateway, link["slug"], "?color=1b3a5c&background=fff8e7&error_correction=Q").content
        file = Path(tmp_path / "styled.svg")
        file.write_bytes(styled)
        with browser.Browser() as window:
            for url in (f"{gateway.url}/{link['slug']}.qr", file.as_uri()):
                window.open(url)
                for dark in (False, True):
                    window.look(width=512, height=512, dark=dark)
                    shot = window.screenshot()
                    assert read(shot) == link["short_url"]
            (tmp_path / "qr-styled.png").write_bytes(shot)
