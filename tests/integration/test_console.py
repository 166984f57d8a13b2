"""The console over HTTP: sessions, forged forms, and what each key sees."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import httpx
import pytest

from tests.integration.console_gateway import ARRANGEMENTS, COOKIE, TARGET, serving, signed_in
from tests.integration.console_session import ConsoleSession
from tests.servers.hopgate import eventually, make_key

gateway = pytest.fixture(serving, scope="module", params=ARRANGEMENTS)
console = pytest.fixture(signed_in)


# --- sessions ------------------------------------------------------------------------------


def test_without_a_session_every_page_leads_to_the_sign_in(gateway):
    for path in ("/console", "/console/links", "/console/links/new", "/console/link?slug=abc"):
        answer = httpx.get(f"{gateway.url}{path}")
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in")
    for path in ("/console/links/new", "/console/link/edit", "/console/link/remove", "/console/sign-out"):
        answer = httpx.post(f"{gateway.url}{path}", data={"slug": "abc"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/console/sign-in?why=over")


def test_sign_in_sets_a_cookie_that_scripts_and_other_sites_cannot_use(gateway):
    answers = [httpx.post(f"{gateway.url}/console/sign-in", data={"key": gateway.key}) for _ in range(2)]

    cookies = [answer.headers["set-cookie"] for answer in answers]
    assert all("; HttpOnly; SameSite=Lax" in cookie and "Max-Age=43200" in cookie for cookie in cookies)
    assert all(cookie.startswith(f"{COOKIE}=") and "Path=/console;" in cookie for cookie in cookies)
    assert cookies[0].partition(";")[0] != cookies[1].partition(";")[0]
    assert not any(gateway.key in cookie or gateway.key.split("_")[2] in cookie for cookie in cookies)


def test_pages_carry_the_policy(gateway, console):
    for answer in (console.get("/console"), console.get("/console/sign-in"), console.page("no-such")):
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy
        assert policy.startswith("default-src 'none'; style-src 'self'; script-src 'self';")
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert not re.search(r"\sstyle=|<style|<script>|\son\w+=", answer.text)


def test_style_is_kept_by_its_version_alone(console):
    address = re.findall(r'href="(/console/style\.css\?v=\w+)"', console.get("/console").text)[0]

    assert console.get(address).headers["cache-control"] == "public, max-age=31536000, immutable"
    assert console.get("/console/style.css?v=other").headers["cache-control"] == "no-cache"
    assert console.get("/console/script.js").headers["content-type"] == "text/javascript; charset=utf-8"


@pytest.mark.parametrize("key", ["", "wrong", "hg_aaaaaaaa_" + "a" * 43 + "_aaaaaa"])
def test_wrong_key_gets_the_form_again(gateway, key):
    answer = httpx.post(f"{gateway.url}/console/sign-in", data={"key": key})

    assert answer.status_code == 401
    assert "This is no key that counts" in answer.text
    assert "set-cookie" not in answer.headers


def test_session_of_another_text_is_none(gateway, console):
    text = console.http.cookies[COOKIE]
    # As releases before the table of sessions have set it.
    former = f"{gateway.key.split('_')[1]}.1700000000.{'a' * 43}.{'a' * 43}"
    changed = [text[:-2] + "AA", "A" * 43, former, "x", text + "x", gateway.key, ""]

    for one in changed:
        answer = httpx.get(f"{gateway.url}/console", headers={"Cookie": f"{COOKIE}={one}"})
        assert answer.status_code == 303, one
        assert answer.headers["location"] == "/console/sign-in?why=over"
        assert "Max-Age=0" in answer.headers["set-cookie"]
    twice = {"Cookie": f"{COOKIE}={text}; {COOKIE}={text}"}
    assert httpx.get(f"{gateway.url}/console", headers=twice).status_code == 303


def test_session_is_no_key_of_the_api(gateway, console):
    text = console.http.cookies[COOKIE]
    for headers in ({"Authorization": f"Bearer {text}"}, {"Cookie": f"{COOKIE}={text}"}):
        assert httpx.get(f"{gateway.url}/api/v1/links", headers=headers).status_code == 401


def test_other_cookies_change_nothing(gateway, console):
    text = console.http.cookies[COOKIE]
    cookies = {"Cookie": f"a=b; {COOKIE}={text}; c=d;=;"}

    assert httpx.get(f"{gateway.url}/console", headers=cookies).status_code == 200
    unreadable = [(b"Cookie", b"theme=\xc3\xa9"), (b"Cookie", b"x=y"), (b"Accept", b"text/html")]
    assert httpx.get(f"{gateway.url}/no-such-link+", headers=unreadable).status_code == 404


@pytest.mark.parametrize("end", ["revoke", "rotate"])
def test_session_ends_with_its_key(gateway, end):
    key = make_key(gateway.settings, "links:read")
    with ConsoleSession(gateway, key) as console:
        assert console.get("/console/links").status_code == 200

        gateway.run("keys", end, key.split("_")[1], *(["--grace", "0"] if end == "rotate" else []))

        answers = []

        def is_over() -> bool:
            answers.append(console.get("/console/links"))
            return answers[-1].status_code == 303

        eventually(is_over, 30, "the session ends")
        over = answers[-1]
        assert over.headers["location"] == "/console/sign-in?why=over"
        assert "Max-Age=0" in over.headers["set-cookie"]


def test_signing_out_ends_copies_of_the_cookie(gateway, console):
    copy = {"Cookie": f"{COOKIE}={console.http.cookies[COOKIE]}"}
    assert httpx.get(f"{gateway.url}/console", headers=copy).status_code == 200

    answer = console.send("/console/sign-out")

    assert answer.headers["location"] == "/console/sign-in?why=left"
    assert COOKIE not in console.http.cookies
    assert "You are signed out" in console.get(answer.headers["location"]).text
    assert httpx.get(f"{gateway.url}/console", headers=copy).status_code == 303


def test_sign_in_takes_no_session_that_was_there(gateway):
    """Neither one that another has put into the browser, nor the one before, which ends."""
    planted = "A" * 43
    url = f"{gateway.url}/console/sign-in"
    first = httpx.post(url, data={"key": gateway.key}, headers={"Cookie": f"{COOKIE}={planted}"})
    second = httpx.post(
        url, data={"key": gateway.key}, headers={"Cookie": f"{COOKIE}={first.cookies[COOKIE]}"}
    )

    texts = [planted, first.cookies[COOKIE], second.cookies[COOKIE]]
    headers = [{"Cookie": f"{COOKIE}={text}"} for text in texts]
    answers = [httpx.get(f"{gateway.url}/console", headers=one).status_code for one in headers]
    assert answers == [303, 303, 200]


def test_link_of_the_command_signs_in_once(gateway):
    url = gateway.run("console", "--scope", "links:read")
    path = url.removeprefix(gateway.url)
    link = path.partition("link=")[2]
    assert not link.startswith("hg_")
    with ConsoleSession(gateway) as console, ConsoleSession(gateway) as second:
        # A program that looks at the address uses nothing up.
        assert "signs you in once" in console.get(path).text

        console.signed_in(console.http.post("/console/sign-in", data={"link": link}))

        assert console.get("/console/links").status_code == 200
        assert console.get("/console/links/new").status_code == 403
        again = second.http.post("/console/sign-in", data={"link": link})
        assert (again.status_code, COOKIE in second.http.cookies) == (401, False)
    secret = link.split(".")[2]
    for text in (link, secret, f"hg_{link.split('.')[0]}_{secret}_000000"):
        headers = {"Authorization": f"Bearer {text}"}
        assert httpx.get(f"{gateway.url}/api/v1/links", headers=headers).status_code == 401


def test_link_with_another_time_is_none(gateway):
    key_id, made, secret = gateway.run("console").partition("link=")[2].split(".")
    changed = f"{key_id}.{int(made) + 1}.{secret}"

    answer = httpx.post(f"{gateway.url}/console/sign-in", data={"link": changed})

    assert answer.status_code == 401


# --- forged forms --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "headers"),
    [
        ("", {}),
        ("wrong", {}),
        ("é", {}),
        (None, {"Origin": "https://evil.example"}),
        (None, {"Origin": "null"}),
        (None, {"Sec-Fetch-Site": "cross-site"}),
        (None, {"Sec-Fetch-Site": "same-site"}),
        (None, {"Content-Type": "text/plain"}),
    ],
)
def test_forged_form_changes_nothing(gateway, console, token, headers):
    slug = f"forged-{len(headers)}{abs(hash(str(token))) % 10_000}"
    form = {"form_token": console.token if token is None else token, "long_url": TARGET, "slug": slug}

    answer = console.http.post("/console/links/new", data=form, headers=headers)

    assert answer.status_code == 403
    assert gateway.link(slug) is None


def test_token_of_another_session_is_wrong(gateway, console):
    with ConsoleSession(gateway, gateway.key) as other:
        console.token = other.token
        assert console.create(long_url=TARGET, slug="of-another").status_code == 403


def test_form_of_this_origin_is_taken(gateway, console):
    form = {"form_token": console.token, "long_url": TARGET, "slug": "of-this-origin"}
    headers = {"Origin": gateway.url, "Sec-Fetch-Site": "same-origin"}

    assert console.http.post("/console/links/new", data=form, headers=headers).status_code == 303


def test_sign_in_from_another_site_is_refused(gateway):
    answer = httpx.post(
        f"{gateway.url}/console/sign-in",
        data={"key": gateway.key},
        headers={"Origin": "https://evil.example"},
    )
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


# --- what keys see -------------------------------------------------------------------------


def test_restricted_key_sees_its_own_links(gateway, console):
    console.create(long_url=TARGET, slug="of-others", title="Of others")
    key = gateway.run(
        "keys", "create", "own", "--own-links", "--scope", "links:read", "--scope", "links:write"
    )
    with ConsoleSession(gateway, key) as own:
        assert own.create(long_url=TARGET, slug="of-mine").status_code == 303

        console.send("/console/link/edit", slug="of-others", version="1", tags="hidden-tag", enabled="on")
        listed = own.get("/console/links").text
        assert "hidden-tag" not in own.get("/console/tags").text

        assert "of-mine" in listed
        assert "of-others" not in listed
        assert "reaches some links alone" in own.get("/console").text
        assert "visits ever" not in own.get("/console").text
        for path in ("/console/link", "/console/link/edit", "/console/link/qr"):
            assert own.get(path, slug="of-others").status_code == 404
        for path in (
            "/console/link/edit",
            "/console/link/edit/check",
            "/console/link/remove",
            "/console/link/undo",
        ):
            assert own.send(path, slug="of-others", version="1", title="x").status_code == 404
        bulk = {"pick-1": "1 127.0.0.1 of-others", "do": "add_tag", "tag": "x"}
        for path in ("/console/links/bulk", "/console/links/bulk/undo"):
            assert "There is nothing here" in own.send(path, **bulk).text
        taken = own.create(long_url=TARGET, slug="of-others")
        assert taken.status_code == 409
        assert "Of others" not in taken.text
        assert own.send("/console/tags/remove", tag="hidden-tag").headers["location"].endswith("count=0")
    assert gateway.link("of-others")["version"] == 2


def test_overview_of_a_domain(gateway, console):
    gateway.run("domains", "add", "numbers.example")
    eventually(lambda: 'option value="">all domains' in console.get("/console").text, 30, "domain is known")
    assert "<option selected>numbers.example" in console.get("/console", of="numbers.example").text
    key = gateway.run("keys", "create", "one", "--domain", "numbers.example", "--scope", "links:read")
    with ConsoleSession(gateway, key) as own:
        pages = [own.get("/console", of=host).text for host in ("numbers.example", "", "127.0.0.1")]

        assert ["visits of people" in page for page in pages] == [True, False, False]
        assert all("127.0.0.1</option>" not in page and "all domains" not in page for page in pages)


def test_overview_leads_from_a_missing_slug_to_the_form_for_it(gateway, console):
    agent = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0"}
    for slug in ("not-yet", "not-yet", "%3Cb%3E"):
        assert httpx.get(f"{gateway.url}/{slug}", headers=agent).status_code == 404
    address = "/console/links/new?slug=not-yet"

    for shown in (f'href="{address}"', "<td>all others</td>"):
        eventually(lambda shown=shown: shown in console.get("/console").text, 10, f"{shown} is listed")
    assert "Looked for, not found" in console.get("/console").text
    form = console.get("/console/links/new", slug="not-yet").text
    assert re.search(r'<input [^>]*name="slug"[^>]* value="not-yet"', form)
    key = gateway.run("keys", "create", "reading", "--scope", "links:read")
    with ConsoleSession(gateway, key) as reading:
        page = reading.get("/console").text
        assert "not-yet" in page
        assert address not in page


def test_key_for_numbers_sees_numbers_alone(gateway, console):
    console.create(
        long_url="https://example.com/secret-target", slug="numbers", title="Secret title", tags="hid"
    )
    console.send("/console/link/edit", slug="numbers", version="1", title="Secret later", enabled="on")
    key = gateway.run("keys", "create", "stats", "--scope", "stats:read")
    with ConsoleSession(gateway, key) as counting:
        page = counting.page("numbers")

        assert page.status_code == 200
        assert 'id="total"' in page.text
        for text in ("ecret", "hid<", "History", "Remove", "/console/link/edit"):
            assert text not in page.text, text
        assert counting.get("/console").status_code == 200
        for path in (
            "/console/links",
            "/console/links/new",
            "/console/link/edit",
            "/console/link/qr",
            "/console/tags",
            "/console/domains",
        ):
            assert counting.get(path, slug="numbers").status_code == 403
        for path in (
            "/console/links/new",
            "/console/links/new/check",
            "/console/link/edit",
            "/console/link/edit/check",
            "/console/link/remove",
            "/console/link/undo",
            "/console/links/bulk",
            "/console/links/bulk/undo",
            "/console/tags/rename",
            "/console/tags/remove",
        ):
            assert counting.send(path, slug="numbers", version="2").status_code == 403


def test_key_that_only_writes_gets_the_short_url(gateway):
    key = gateway.run("keys", "create", "write", "--scope", "links:write")
    with ConsoleSession(gateway, key) as writing:
        made = writing.create(long_url=TARGET, slug="written")

        assert made.status_code == 201
        assert f"{gateway.url}/written" in made.text
        for path in (
            "/console/link/edit",
            "/console/link/remove",
            "/console/link/undo",
            "/console/links/bulk",
            "/console/tags/rename",
            "/console/tags/remove",
        ):
            assert writing.send(path, slug="written", version="1").status_code == 403
    assert gateway.link("written")["version"] == 1


def test_key_without_admin_manages_nothing(gateway):
    key = gateway.run("keys", "create", "most", "--scope", "links:read", "--scope", "links:write")
    with ConsoleSession(gateway, key) as most:
        listed = most.get("/console/domains")

        assert listed.status_code == 200
        assert "/console/domains/" not in listed.text
        assert "/console/health" not in listed.text
        for path in (
            "/console/domains/new",
            "/console/domains/edit",
            "/console/keys",
            "/console/keys/new",
            "/console/import",
            "/console/health",
        ):
            assert most.get(path, host="127.0.0.1").status_code == 403
        for path in (
            "/console/domains/new",
            "/console/domains/edit",
            "/console/domains/remove",
            "/console/keys/new",
            "/console/keys/rotate",
            "/console/keys/revoke",
        ):
            assert most.send(path, host="127.0.0.1").status_code == 403
        assert most.upload(b"long_url\nhttps://example.com/\n", do="import").status_code == 403


def test_history_names_the_key(gateway, console):
    console.create(long_url=TARGET, slug="by-a-key", title="a")
    console.send("/console/link/edit", slug="by-a-key", version="1", long_url=TARGET, title="b", enabled="on")
    key_id = gateway.key.split("_")[1]

    assert gateway.link("by-a-key")["owner"] == key_id
    assert f"by <code>{key_id}</code>" in console.page("by-a-key").text
    assert datetime.now(UTC).strftime("%Y-%m-%d") in console.page("by-a-key").text
