"""Tags, domains, keys and imports in the console, over HTTP."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.integration.console_gateway import ARRANGEMENTS, COOKIE, TARGET, serving, signed_in
from tests.servers.hopgate import eventually
from tests.servers.raw_http import answered

gateway = pytest.fixture(serving, scope="module", params=ARRANGEMENTS)
console = pytest.fixture(signed_in)


def test_tags_are_counted_renamed_and_taken(gateway, console):
    for slug, tags in (("tagged-1", "old one, kept"), ("tagged-2", "old one"), ("tagged-3", "kept")):
        console.create(long_url=TARGET, slug=slug, tags=tags)

    renamed = console.send("/console/tags/rename", tag="old one", name="new one")

    assert renamed.headers["location"] == "/console/tags?done=renamed&count=2"
    assert gateway.link("tagged-1")["tags"] == ["new one", "kept"]
    page = console.get(renamed.headers["location"])
    assert "Links that were changed: 2" in page.text
    assert 'href="/console/links?tag=new+one">new one</a>' in page.text
    assert "old one" not in page.text
    wrong = console.send("/console/tags/rename", tag="new one", name="new one")
    assert wrong.status_code == 422
    assert "must be another tag" in wrong.text
    taken = console.send("/console/tags/remove", tag="kept")
    assert taken.headers["location"] == "/console/tags?done=taken&count=2"
    assert gateway.link("tagged-3")["tags"] == []
    assert console.send("/console/tags/remove", tag="").status_code == 422
    assert console.get("/console/tags", cursor="x").status_code == 422


def test_domain_is_added_changed_and_removed(gateway, console):
    form = {"host": "Go.Example", "case_sensitive": "on", "root_url": "https://www.example.com"}

    added = console.send("/console/domains/new", **form, min_slug_length="2", robots="disallow")

    assert added.headers["location"] == "/console/domains?done=added"
    assert "https://www.example.com/" in console.get(added.headers["location"]).text
    assert console.send("/console/domains/new", **form).status_code == 409
    edit = console.get("/console/domains/edit", host="go.example").text
    version = re.findall(r'name="version" value="(\d+)"', edit)[0]
    fields = {"host": "go.example", "version": version, "min_slug_length": "2", "robots": "disallow"}
    kept = {**fields, "root_url": "https://www.example.com/", "redirect_code": "302"}
    same = console.send("/console/domains/edit", **kept)
    assert same.headers["location"].endswith("done=unchanged")
    done = console.send("/console/domains/edit", **{**kept, "root_url": ""}, unicode="on", slug_length="9")
    assert done.headers["location"].endswith("done=changed")
    stale = console.send("/console/domains/edit", **kept, expired_url="https://mine.example/")
    assert stale.status_code == 409
    assert 'value="https://mine.example/"' in stale.text
    assert "By now: 9" in stale.text
    headers = {"Authorization": f"Bearer {gateway.key}"}
    stored = httpx.get(f"{gateway.url}/api/v1/domains/go.example", headers=headers).json()
    assert (stored["root_url"], stored["unicode"], stored["slug_length"]) == (None, True, 9)
    assert (stored["min_slug_length"], stored["robots"], stored["multi_segment"]) == (2, "disallow", False)
    console.create(long_url=TARGET, slug="of-domain", domain="go.example")
    used = console.send("/console/domains/remove", host="go.example")
    assert used.status_code == 409
    assert "of-domain" in used.text
    console.send("/console/link/remove", slug="of-domain", domain="go.example", version="1")
    gone = console.send("/console/domains/remove", host="go.example")
    assert gone.headers["location"].endswith("done=removed")


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"host": ""}, "must name a host"),
        ({"host": '"><b>'}, 'id="host-error"'),
        ({"host": "other.example", "root_url": "no url"}, 'id="root_url-error"'),
        ({"host": "other.example", "slug_length": "x"}, "must be a whole number"),
        ({"host": "other.example", "slug_length": "4"}, "must be 5 to 32"),
        ({"host": "other.example", "redirect_code": "200"}, "must be one of"),
        ({"host": "other.example", "robots": "x"}, 'id="robots-error"'),
    ],
)
def test_wrong_domain_is_refused_at_its_field(console, form, words):
    answer = console.send("/console/domains/new", **form)

    assert answer.status_code == 422
    assert words in answer.text
    assert console.send("/console/domains/remove", host="127.0.0.1").status_code == 422
    assert console.send("/console/domains/edit", host="").status_code == 404


SECRET = re.compile(r'id="secret" readonly autocomplete="off" value="(hg_\w+)"')


def me(gateway, key: str) -> httpx.Response:
    return httpx.get(f"{gateway.url}/api/v1/me", headers={"Authorization": f"Bearer {key}"})


def test_key_is_made_shown_once_rotated_and_revoked(gateway, console):
    form = {"name": "for <b>reports", "scope-links:read": "on", "scope-stats:read": "on"}
    limits = {"own_links": "on", "allowed_addresses": "127.0.0.0/8, ::1", "rate_limit": "500 per minute"}

    made = console.send("/console/keys/new", **form, **limits, domains="127.0.0.1")

    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    key = SECRET.findall(made.text)[0]
    known = me(gateway, key).json()
    assert known["scopes"] == ["links:read", "stats:read"]
    assert (known["own_links"], known["domains"]) == (True, ["127.0.0.1"])
    assert known["allowed_addresses"] == ["127.0.0.0/8", "::1/128"]
    listed = console.get("/console/keys").text
    assert "for &lt;b&gt;reports" in listed
    assert key not in listed
    assert key.split("_")[2] not in listed
    rotated = console.send("/console/keys/rotate", key_id=known["key_id"], grace="0")
    other = SECRET.findall(rotated.text)[0]
    assert other != key
    assert me(gateway, other).status_code == 200
    eventually(lambda: me(gateway, key).status_code == 401, 10, "the old secret is over")
    revoked = console.send("/console/keys/revoke", key_id=known["key_id"])
    assert revoked.headers["location"] == "/console/keys?done=revoked"
    assert "The key is revoked." in console.get(revoked.headers["location"]).text
    eventually(lambda: me(gateway, other).status_code == 401, 10, "the key is over")
    assert known["key_id"] not in console.get("/console/keys").text
    assert known["key_id"] in console.get("/console/keys", all="1").text
    assert console.send("/console/keys/rotate", key_id=known["key_id"], grace="1d").status_code == 404
    assert console.send("/console/keys/rotate", key_id="none", grace="x").status_code == 422
    assert console.send("/console/keys/revoke", key_id="none").status_code == 404


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"name": "x"}, 'id="scopes-error"'),
        ({"scope-links:read": "on"}, 'id="name-error"'),
        ({"name": "x", "scope-none": "on"}, 'id="scopes-error"'),
        ({"name": "x", "scope-admin": "on", "own_links": "on"}, 'id="own_links-error"'),
        ({"name": "x", "scope-links:read": "on", "domains": "no.example"}, 'id="domains-error"'),
        ({"name": "x", "scope-links:read": "on", "allowed_addresses": "x"}, 'id="allowed_addresses-error"'),
        ({"name": "x", "scope-links:read": "on", "domains": ","}, 'id="domains-error"'),
        ({"name": "x", "scope-links:read": "on", "allowed_addresses": ","}, 'id="allowed_addresses-error"'),
        ({"name": "x", "scope-links:read": "on", "rate_limit": "x"}, 'id="rate_limit-error"'),
        ({"name": "x", "scope-links:read": "on", "expires_at": "x"}, 'id="expires_at-error"'),
        ({"name": "x", "scope-links:read": "on", "expires_at": "2001-01-01T00:00"}, "lies in the past"),
    ],
)
def test_wrong_key_is_refused_at_its_field(console, form, words):
    answer = console.send("/console/keys/new", **form)

    assert answer.status_code == 422
    assert words in answer.text
    assert SECRET.findall(answer.text) == []


ROWS = b"""long_url,slug,title
https://example.com/1,import-1,<b>One
not a url,import-2,Two
https://example.com/3,no slug!,Three
https://example.com/4,import-4,Four
"""


def test_file_is_checked_then_imported(gateway, console):
    checked = console.upload(ROWS, do="check")

    assert checked.status_code == 200
    assert "Nothing was stored" in checked.text
    assert "<dt>Refused rows</dt><dd>2</dd>" in checked.text
    assert "<dt>New links</dt><dd>2</dd>" in checked.text
    assert "<td>3</td><td>long_url:" in checked.text
    assert "<td>4</td><td>slug:" in checked.text
    assert checked.text.rstrip().endswith("</html>")
    assert gateway.link("import-1") is None
    done = console.upload(ROWS, do="import", format="csv")
    assert "The import is done." in done.text
    assert gateway.link("import-1")["title"] == "<b>One"
    assert gateway.link("import-4") is not None
    again = console.upload(ROWS.replace(b"Four", b"Fourth"), do="import", update="on", ignore="title")
    assert "<dt>Already there</dt><dd>2</dd>" in again.text
    renamed = console.upload(ROWS.replace(b"Four", b"Fourth"), do="import", update="on")
    assert "<dt>Changed links</dt><dd>1</dd>" in renamed.text
    assert gateway.link("import-4")["title"] == "Fourth"


def test_large_file_grows_its_page(gateway, console):
    rows = b"".join(b"https://example.com/large/%d,large-%d\n" % (n, n) for n in range(3_000))
    content = b"long_url,slug\n" + rows

    page = console.upload(content, do="import").text

    assert "<dt>New links</dt><dd>3,000</dd>" in page
    assert page.count(" %: Rows read ") > 3
    assert "100 %: Rows read 3,000" in page
    assert gateway.link("large-2999") is not None


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x00\x01", b'{"a": 1}', b"<b>\n<b>\n"])
def test_unreadable_file_is_refused(console, content):
    answer = console.upload(content, do="import")

    assert answer.status_code == 422
    assert "The file is refused" in answer.text
    assert '<p class="wrong" role="alert">' in answer.text


def test_forged_upload_stores_nothing(gateway, console):
    file = {"file": ("links.csv", b"long_url,slug\nhttps://example.com/,forged-upload\n")}
    form = {"form_token": console.token, "do": "import"}
    for data, headers in (
        ({"do": "import"}, {}),
        ({**form, "form_token": "wrong"}, {}),
        (form, {"Origin": "https://evil.example"}),
        (form, {"Sec-Fetch-Site": "cross-site"}),
    ):
        answer = console.http.post("/console/import", data=data, files=file, headers=headers)
        assert answer.status_code == 403, (data, headers)
    assert console.send("/console/import", do="import").status_code == 403
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    assert console.http.post("/console/import", content=b"--x--", headers=headers).status_code == 403
    without = httpx.post(f"{gateway.url}/console/import", data=form, files=file)
    assert without.headers["location"] == "/console/sign-in?why=over"
    cookie = f"{COOKIE}={console.http.cookies[COOKIE]}"
    head = (
        f"POST /console/import HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookie}\r\n"
        f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {2**30}\r\n\r\n"
    )
    too_large = answered(int(gateway.url.rpartition(":")[2]), head.encode())
    assert too_large.status == 413
    assert b"That is too much at once" in too_large.body
    assert gateway.link("forged-upload") is None


def test_health_has_the_figures_of_the_page_of_operators(gateway, console):
    page = console.get("/console/health")

    found = httpx.get(f"{gateway.url}/status?format=json", auth=("", gateway.key)).json()
    assert (page.status_code, page.headers["cache-control"]) == (200, "no-store")
    assert "Everything answers." in page.text
    assert f"Version {found['version']}." in page.text
    assert page.text.count('<td class="count">answers</td>') == len(found["dependencies"])
    assert ">front</th>" in page.text or "front" not in found["dependencies"]
    assert '<a href="/console/health" aria-current="page">Health</a>' in page.text
