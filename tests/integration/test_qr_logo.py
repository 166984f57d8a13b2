"""QR codes with the operator's logo: `/{slug}.qr`, the API and the console; what a bad file does."""

from __future__ import annotations

import io
import subprocess
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image, ImageDraw

from tests.integration.api_calls import LINKS, problem
from tests.integration.console_session import ConsoleSession
from tests.integration.domain_gateway import Serving, serving
from tests.qr_reader import read
from tests.servers import browser
from tests.servers.hopgate import Gateway, environment, hopgate
from tests.servers.hopgate import command as command_line

RED = (200, 30, 60)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("logo")
    image = Image.new("RGBA", (96, 96))
    ImageDraw.Draw(image).ellipse((0, 0, 95, 95), fill=RED)
    image.save(folder / "logo.png")
    yield from serving({"HOPGATE_QR_LOGO": str(folder / "logo.png")}, folder)


def has_logo(png: bytes) -> bool:
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    return image.getpixel((image.width // 2, image.height // 2)) == (*RED, 255)


def test_public_codes_have_the_logo(gateway):
    link = gateway.link()

    png = gateway.api.get(f"/{link['slug']}.qr.png")
    svg = gateway.api.get(f"/{link['slug']}.qr")

    assert (read(png.content), has_logo(png.content)) == (link["short_url"], True)
    assert svg.content.count(b'href="data:image/png;base64,') == 1
    held = gateway.api.get(f"/{link['slug']}.qr", headers={"If-None-Match": svg.headers["etag"]})
    assert held.status_code == 304


@pytest.mark.parametrize("size", [128, 256, 1000, 2048])
def test_api_draws_the_logo_on_demand(gateway, size):
    link = gateway.link()
    query = {"format": "png", "size": str(size), "color": "1b3a5c", "background": "fff8e7"}

    drawn = gateway.api.get(f"{LINKS}/{link['slug']}/qr", params={**query, "logo": "true"})
    plain = gateway.api.get(f"{LINKS}/{link['slug']}/qr", params=query)

    assert (read(drawn.content), has_logo(drawn.content)) == (link["short_url"], True)
    assert (read(plain.content), has_logo(plain.content)) == (link["short_url"], False)
    assert drawn.headers["etag"] != plain.headers["etag"]


def test_api_refuses_a_logo_on_too_little_error_correction(gateway):
    path = f"{LINKS}/{gateway.link()['slug']}/qr"

    refused = gateway.api.get(path, params={"logo": "true", "error_correction": "Q"})

    [error] = problem(refused, 422, "invalid")["errors"]
    assert (error["field"], error["code"]) == ("error_correction", "error_correction_low")
    assert gateway.api.get(path, params={"logo": "true", "error_correction": "H"}).status_code == 200


def test_console_shows_the_logo(gateway):
    """By the address of the machine: the cookie of the base URL, https, is not sent without TLS."""
    link = gateway.link()
    key = gateway.api.headers["Authorization"].removeprefix("Bearer ")
    with ConsoleSession(gateway) as console:
        signed = console.http.post("/console/sign-in", data={"key": key}, headers={"Host": "hop.example"})
        cookie = signed.headers["set-cookie"].partition(";")[0]
        headers = {"Host": "hop.example", "Cookie": cookie}
        shown = console.http.get("/console/link/qr", params={"slug": link["slug"]}, headers=headers)
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/svg+xml")
    assert b'href="data:image/png;base64,' in shown.content


@pytest.mark.parametrize("content", [b"<svg/>", None])
def test_bad_logo_is_named_at_the_start_and_by_doctor(tmp_path, content):
    logo = tmp_path / "logo.png"
    if content is not None:
        logo.write_bytes(content)
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_QR_LOGO": str(logo)}

    reason = "No such file or directory" if content is None else "is no PNG file"
    for command in ("serve", "doctor"):
        done = hopgate(settings, command)
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.startswith(f"hopgate: HOPGATE_QR_LOGO: {logo}: {reason}")


@pytest.mark.parametrize("command", ["serve", "doctor"])
def test_logo_without_pillow_is_refused_in_one_line(tmp_path, command):
    package = tmp_path / "without" / "PIL"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('not installed', name='PIL')")
    Image.new("RGB", (64, 64)).save(tmp_path / "logo.png")
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(package.parent)}

    settings |= {"HOPGATE_QR_LOGO": str(tmp_path / "logo.png")}
    done = subprocess.run(
        command_line(command), env=environment(settings), capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("hopgate: HOPGATE_QR_LOGO: needs Pillow, ")
    assert "run `make logo`, or pip install 'hopgate[logo]'" in line


def test_pillow_is_imported_for_a_logo_alone(tmp_path):
    """A package in its place ends what imports it."""
    package = tmp_path / "without" / "PIL"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "PYTHONPATH": str(package.parent)}

    with Gateway(settings, tmp_path) as gateway:
        assert httpx.get(f"{gateway.url}/absent").status_code == 404


@pytest.mark.skipif(bool(browser.missing()), reason=f"{browser.missing()}: not installed")
def test_browser_draws_the_logo_of_the_svg(gateway):
    """Its own policy lets the image in it through."""
    link = gateway.link()
    with browser.Browser() as window:
        window.look(width=600, height=600, dark=False)
        window.open(f"{gateway.url}/{link['slug']}.qr")
        shot = window.screenshot()
    code = Image.open(io.BytesIO(shot)).crop((0, 0, 512, 512))
    assert read(shot) == link["short_url"]
    assert code.convert("RGB").getpixel((256, 256)) == RED
