"""The console under other settings: off, behind HTTPS, below a path, with limits, at other hosts."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from app.console.live import ALL, LINK
from tests.integration.console_session import ConsoleSession
from tests.servers.hopgate import UNLIMITED, Gateway, hopgate, make_key

FRONT = pytest.mark.parametrize("front", ["off", "on"])


def settings_of(tmp_path: Path, **settings: str) -> dict[str, str]:
    names = {f"HOPGATE_{name}": value for name, value in settings.items()}
    return {**UNLIMITED, "HOPGATE_DATA_DIR": str(tmp_path / "data"), **names}


@FRONT
def test_console_that_is_off_is_nothing(tmp_path, front):
    settings = settings_of(tmp_path, CONSOLE="off", FRONT=front)
    make_key(settings)
    with Gateway(settings, tmp_path) as gateway:
        for path in ("/console", "/console/sign-in", "/console/style.css"):
            assert httpx.get(f"{gateway.url}{path}").status_code == 404
    assert "HOPGATE_CONSOLE is off" in hopgate(settings, "console").stderr


@FRONT
def test_https_binds_the_cookie_to_the_host(tmp_path, front):
    settings = settings_of(tmp_path, BASE_URL="https://hop.example/go", FRONT=front)
    key = make_key(settings)
    with Gateway(settings, tmp_path) as gateway:
        form = {"key": key}
        headers = {"Origin": "https://hop.example"}
        answer = httpx.post(f"{gateway.url}/go/console/sign-in", data=form, headers=headers)

        assert answer.headers["location"] == "/go/console"
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith("__Host-hopgate_session=")
        assert "; Path=/; Secure; Max-Age=43200; HttpOnly; SameSite=Lax" in cookie
        page = httpx.get(f"{gateway.url}/go/console", headers={"Cookie": cookie.partition(";")[0]})
        addresses = re.findall(r'(?:href|src|action)="([^"#]+)"', page.text)
        assert len(addresses) > 5
        assert all(address.startswith("/go/") for address in addresses)
        for address in addresses:
            if "." in address:
                assert httpx.get(f"{gateway.url}{address}").status_code == 200


@FRONT
def test_hosts_of_other_domains_have_no_console(tmp_path, front):
    settings = settings_of(tmp_path, BASE_URL="http://hop.example", FRONT=front)
    key = make_key(settings)
    assert hopgate(settings, "domains", "add", "brand.example").returncode == 0
    with Gateway(settings, tmp_path) as gateway:
        for path, status in (("/console", 303), ("/console/sign-in", 200)):
            assert httpx.get(f"{gateway.url}{path}").status_code == status
            other = httpx.get(f"{gateway.url}{path}", headers={"Host": "brand.example"})
            assert other.status_code == 404
        answer = httpx.post(
            f"{gateway.url}/console/sign-in", data={"key": key}, headers={"Host": "brand.example"}
        )
        assert (answer.status_code, "set-cookie" in answer.headers) == (404, False)
        with ConsoleSession(gateway, key) as console:
            # No session of the console, and still in its reach: a link of another domain.
            made = console.create(long_url="https://example.com/", slug="branded", domain="brand.example")
            assert made.headers["location"] == "/console/link?slug=branded&domain=brand.example&done=created"
            page = console.get(made.headers["location"])
            assert "http://brand.example/branded" in page.text
            code = re.findall(r'<img class="qr" src="([^"]+)"', page.text)[0].replace("&amp;", "&")
            assert console.get(code).status_code == 200


@FRONT
def test_attempts_are_limited_as_those_of_the_api(tmp_path, front):
    settings = settings_of(tmp_path, LIMIT_API="6/min burst 5", FRONT=front)
    key = make_key(settings)
    with Gateway(settings, tmp_path) as gateway:
        wrong = [httpx.post(f"{gateway.url}/console/sign-in", data={"key": "x"}) for _ in range(8)]
        forged = httpx.get(
            f"{gateway.url}/console", headers={"Cookie": "hopgate_session=" + forged_session()}
        )

        assert 429 in {answer.status_code for answer in wrong}
        refused = wrong[-1]
        assert refused.status_code == 429
        assert "Too many requests" in refused.text
        assert int(refused.headers["retry-after"]) >= 1
        assert forged.status_code == 429
        # A valid key does not depend on the others of its address.
        with ConsoleSession(gateway, key) as console:
            assert console.get("/console").status_code == 200


def forged_session() -> str:
    return "a" * 43


def test_first_start_prints_a_link_that_signs_in(tmp_path):
    with Gateway(settings_of(tmp_path), tmp_path) as gateway:
        found = re.search(r"(/console/sign-in)\?link=(\S+)", gateway.output)
        assert found is not None
        with ConsoleSession(gateway) as console:
            console.signed_in(console.http.post(found[1], data={"link": found[2]}))
            assert console.create(long_url="https://example.com/").status_code == 303


def test_other_language(tmp_path):
    settings = settings_of(tmp_path, LANGUAGE="de")
    key = make_key(settings)
    with Gateway(settings, tmp_path) as gateway, ConsoleSession(gateway, key) as console:
        assert '<html lang="de">' in console.get("/console").text
        assert "Noch keine Links" in console.get("/console/links").text
        assert "Alles antwortet." in console.get("/console/health").text


def test_pages_without_streams_are_not_live(tmp_path):
    settings = settings_of(tmp_path, EVENT_STREAMS="0")
    key = make_key(settings)
    with Gateway(settings, tmp_path) as gateway, ConsoleSession(gateway, key) as console:
        assert console.create(long_url="https://example.com/", slug="still").status_code == 303
        for path in ("/console", "/console/link?slug=still"):
            page = console.get(path).text
            assert "data-figure" in page
            assert "live.js" not in page
            assert "data-live" not in page
        for path in (ALL, f"{LINK}?slug=still"):
            assert console.get(path).status_code == 503
