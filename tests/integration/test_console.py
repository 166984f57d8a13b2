"""The console over HTTP: sessions, forms, what each key sees, and what links become."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.integration.console_session import ConsoleSession
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_key
from tests.servers.raw_http import answered

COOKIE = "hopgate_session"
TARGET = "https://example.com/a"


class ConsoleGateway(Gateway):
    """A gateway with an admin key."""

    def __init__(self, settings: dict[str, str], directory) -> None:
        super().__init__(settings, directory)
        self.settings = settings
        self.key = make_key(settings)

    def run(self, *arguments: str) -> str:
        done = hopgate(self.settings, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def link(self, slug: str) -> dict | None:
        headers = {"Authorization": f"Bearer {self.key}"}
        answer = httpx.get(f"{self.url}/api/v1/links/{slug}", headers=headers)
        return answer.json() if answer.status_code == 200 else None

    def count(self) -> int:
        headers = {"Authorization": f"Bearer {self.key}"}
        params = {"count": "true"}
        return int(httpx.get(f"{self.url}/api/v1/links", params=params, headers=headers).json()["count"])


@pytest.fixture(scope="module", params=["off", "on"], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[ConsoleGateway]:
    directory = tmp_path_factory.mktemp("console")
    settings = {
        **UNLIMITED,
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_FRONT": request.param,
    }
    with ConsoleGateway(settings, directory) as gateway:
        yield gateway


@pytest.fixture
def console(gateway) -> Iterator[ConsoleSession]:
    with ConsoleSession(gateway, gateway.key) as console:
        yield console


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

        eventually(is_over, 3, "the session ends")
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


# --- links ---------------------------------------------------------------------------------


def test_new_link_is_visited_and_counted(gateway, console):
    made = console.create(
        long_url="https://example.com/long",
        slug="counted",
        title="Spring sale",
        tags="spring, sale",
        expires_at="2090-01-31T12:30",
        max_visits="500",
        utm_source="news letter",
    )

    assert made.headers["location"] == "/console/link?slug=counted&domain=127.0.0.1&done=created"
    link = gateway.link("counted")
    assert link is not None
    assert (link["long_url"], link["tags"]) == (
        "https://example.com/long?utm_source=news%20letter",
        ["spring", "sale"],
    )
    assert (link["expires_at"], link["max_visits"]) == ("2090-01-31T12:30:00Z", 500)
    page = console.get(made.headers["location"])
    assert "The link is there." in page.text
    assert "Spring sale" in page.text
    for _ in range(3):
        assert httpx.get(f"{gateway.url}/counted").status_code == 302
    eventually(
        lambda: '<span class="figure" id="total">3</span>' in console.page("counted").text, 15, "visits"
    )
    assert httpx.get(f"{gateway.url}/counted.qr").status_code == 200
    code = console.get("/console/link/qr", slug="counted")
    assert code.headers["content-type"] == "image/svg+xml"
    assert "127.0.0.1" in console.get("/console/links", search="spring").text


def test_form_with_errors_keeps_what_was_typed(gateway, console):
    typed = {
        "long_url": "not a url",
        "slug": "no slug!",
        "title": '"> typed',
        "tags": "a,b",
        "max_visits": "x",
    }

    answer = console.create(**typed)

    assert answer.status_code == 422
    assert "must be a whole number" in answer.text
    assert 'value="not a url"' in answer.text
    assert 'value="&#34;&gt; typed"' in answer.text
    typed["max_visits"] = "5"
    answer = console.create(**typed)
    assert answer.status_code == 422
    for field in ("long_url", "slug"):
        assert f'id="{field}-error"' in answer.text
        assert f'aria-describedby="{field}-hint {field}-error"' in answer.text


def test_bookmark_fills_the_form_and_stores_nothing(gateway, console):
    count = gateway.count()

    page = console.get("/console/links/new", long_url="https://example.com/marked", title='"> A <b>page')

    assert 'value="https://example.com/marked"' in page.text
    assert 'value="&#34;&gt; A &lt;b&gt;page"' in page.text
    assert gateway.count() == count
    bookmark = re.findall(r'href="(javascript:[^"]*)"', console.get("/console").text)[0]
    assert f"{gateway.url}/console/links/new?long_url=" in bookmark
    assert "hg_" not in bookmark


def test_sign_in_leads_back_to_the_form_that_a_bookmark_filled(gateway):
    marked = {"long_url": "https://example.com/?a=1&b=2", "title": '"> A\r\nX: y', "slug": "not-kept"}

    asked = httpx.get(f"{gateway.url}/console/links/new", params=marked)
    page = httpx.get(f"{gateway.url}{asked.headers['location']}").text
    [new] = re.findall(r'name="new" value="([^"]*)"', page)
    wrong = httpx.post(f"{gateway.url}/console/sign-in", data={"key": "no", "new": html.unescape(new)})
    form = {"key": gateway.key, "new": html.unescape(new)}
    signed_in = httpx.post(f"{gateway.url}/console/sign-in", data=form)

    assert f'name="new" value="{new}"' in wrong.text
    place = urlsplit(signed_in.headers["location"])
    assert (signed_in.status_code, place.netloc, place.path) == (303, "", "/console/links/new")
    assert dict(parse_qsl(place.query)) == {name: marked[name] for name in ("long_url", "title")}


@pytest.mark.parametrize(
    "new", ["//evil.example", "https://evil.example/", "&".join("a" * 200), "long_url=", "%ff=%0d"]
)
def test_sign_in_leads_nowhere_else(gateway, new):
    answer = httpx.post(f"{gateway.url}/console/sign-in", data={"key": gateway.key, "new": new})

    assert (answer.status_code, answer.headers["location"]) == (303, "/console")


def test_preview_shows_the_target_and_stores_nothing(gateway, console):
    console.create(long_url=TARGET, slug="previewed-taken")
    form = {"long_url": "https://example.com/x?a=1#top", "utm_source": "news letter", "utm_term": ""}

    page = console.send("/console/links/new/check", **form, slug="previewed", title='"> kept', once="abc1")
    said = console.send("/console/links/new/check", **form, slug="previewed", **{"as": "json"})

    target = "https://example.com/x?a=1&utm_source=news%20letter#top"
    assert page.status_code == 200
    assert target.replace("&", "&amp;") in page.text
    assert "is free" in page.text
    assert 'value="&#34;&gt; kept"' in page.text
    assert 'name="once" value="abc1"' in page.text
    assert said.json() == {"target": target, "slug": "is free", "slug_is_wrong": False}
    assert said.headers["cache-control"] == "no-store"
    assert gateway.link("previewed") is None
    for typed, words in (
        ({"slug": "previewed-taken"}, "is not free"),
        ({"slug": "console"}, "is reserved"),
        ({"slug": "no slug!"}, "characters of A-Z"),
        ({"slug": "no slug!", "long_url": "not a url"}, "characters of A-Z"),
    ):
        found = console.send("/console/links/new/check", **{**form, **typed}, **{"as": "json"}).json()
        assert (found["slug_is_wrong"], words in found["slug"]) == (True, True), typed
    assert found["target"] == ""
    assert console.http.post("/console/links/new/check", data=form).status_code == 403


def test_preview_of_an_edit_shows_the_target_and_changes_nothing(gateway, console):
    console.create(long_url="https://example.com/?utm_source=a&b=c", slug="edit-previewed")
    form = {"slug": "edit-previewed", "version": "1", "long_url": "https://example.com/?utm_source=a&b=c"}

    page = console.send("/console/link/edit/check", **form, utm_source="z", enabled="on", title="Kept")
    said = console.send("/console/link/edit/check", **form, utm_source="", **{"as": "json"})
    wrong = console.send("/console/link/edit/check", **{**form, "long_url": "ftp:x"}, enabled="on")

    assert "https://example.com/?utm_source=z&amp;b=c" in page.text
    assert 'value="Kept"' in page.text
    assert said.json()["target"] == "https://example.com/?b=c"
    assert 'id="long_url-error"' in wrong.text
    assert gateway.link("edit-previewed")["version"] == 1


def test_taken_slug_is_said_at_its_field(console):
    console.create(long_url=TARGET, slug="taken-one")

    answer = console.create(long_url="https://example.com/other", slug="taken-one")

    assert answer.status_code == 409
    assert 'id="slug-error">is not free' in answer.text


def test_form_that_is_sent_twice_makes_one_link(gateway, console):
    once = re.findall(r'name="once" value="(\w+)"', console.get("/console/links/new").text)[0]
    sent = [
        console.send("/console/links/new", once=once, long_url="https://example.com/once") for _ in range(2)
    ]
    other = console.send("/console/links/new", once=once, long_url="https://example.com/twice")

    assert sent[0].status_code == 303
    assert sent[0].headers["location"] == sent[1].headers["location"]
    assert other.status_code == 409
    assert "was sent before" in other.text


def test_edit_changes_what_was_edited(gateway, console):
    console.create(long_url="https://example.com/x?utm_source=a&b=c", slug="edited", title="Before", tags="t")
    form = {"slug": "edited", "version": "1", "long_url": "https://example.com/x?utm_source=a&b=c"}

    done = console.send("/console/link/edit", **form, title="After", tags="t", utm_source="a", enabled="on")

    assert done.headers["location"].endswith("done=changed")
    link = gateway.link("edited")
    assert link is not None
    assert (link["title"], link["version"], link["enabled"]) == ("After", 2, True)
    history = console.page("edited").text
    assert "Before" in history
    assert "After" in history
    off = console.send("/console/link/edit", **{**form, "version": "2"}, title="After", tags="t")
    assert off.status_code == 303
    assert gateway.link("edited")["enabled"] is False
    same = console.send("/console/link/edit", **{**form, "version": "3"}, title="After", tags="t")
    assert same.headers["location"].endswith("done=unchanged")
    assert gateway.link("edited")["version"] == 3


def test_edit_of_an_older_version_shows_both(gateway, console):
    console.create(long_url=TARGET, slug="conflict", title="First")
    console.send(
        "/console/link/edit", slug="conflict", version="1", long_url=TARGET, title="Theirs", enabled="on"
    )

    mine = {"slug": "conflict", "long_url": TARGET, "title": "Mine", "enabled": "on"}
    answer = console.send("/console/link/edit", version="1", **mine)

    assert answer.status_code == 409
    assert 'value="Mine"' in answer.text
    assert "By now: Theirs" in answer.text
    assert gateway.link("conflict")["title"] == "Theirs"
    assert 'name="version" value="2"' in answer.text
    assert console.send("/console/link/edit", version="2", **mine).status_code == 303
    assert gateway.link("conflict")["title"] == "Mine"


def test_removal_is_undone(gateway, console):
    console.create(long_url=TARGET, slug="removed")

    gone = console.send("/console/link/remove", slug="removed", version="1")

    assert httpx.get(f"{gateway.url}/removed").status_code == 410
    page = console.get(gone.headers["location"])
    assert page.status_code == 410
    assert "Undo the removal" in page.text
    back = console.send("/console/link/undo", slug="removed", version="2")
    assert back.headers["location"].endswith("done=undone")
    assert httpx.get(f"{gateway.url}/removed").status_code == 302
    stale = console.send("/console/link/undo", slug="removed", version="2")
    assert stale.status_code == 409
    stale = console.send("/console/link/remove", slug="removed", version="1")
    assert stale.status_code == 409
    assert gateway.link("removed") is not None


def picks(page: str) -> dict[str, str]:
    """Return the boxes of a list, or the fields of an undo, by the slugs that they name."""
    found = re.findall(r'name="(pick-\d+)" value="([^"]+)"', page)
    return {value.rpartition(" ")[2]: f"{name}={value}" for name, value in found}


def picked(page: str, *slugs: str) -> dict[str, str]:
    return dict(picks(page)[slug].split("=", 1) for slug in slugs)


def test_several_links_are_changed_at_once_and_back(gateway, console):
    for slug in ("many-1", "many-2", "many-3"):
        console.create(long_url=TARGET, slug=slug, title="many", tags="many")
    listed = console.get("/console/links", tag="many").text
    both = picked(listed, "many-1", "many-2")
    # Another changes one of them meanwhile.
    console.send("/console/link/edit", slug="many-2", version="1", title="b", tags="many", enabled="on")

    done = console.send("/console/links/bulk", **both, do="add_tag", tag="new tag", back="tag=many")

    assert done.status_code == 200
    assert "1 / 2" in done.text
    assert "was changed meanwhile" in done.text
    assert 'href="/console/links?tag=many"' in done.text
    assert gateway.link("many-1")["tags"] == ["many", "new tag"]
    assert gateway.link("many-2")["tags"] == ["many"]
    assert set(picks(done.text)) == {"many-1"}
    undone = console.send("/console/links/bulk/undo", **picked(done.text, "many-1"))
    assert "1 / 1" in undone.text
    assert gateway.link("many-1")["tags"] == ["many"]
    everything = picked(console.get("/console/links", tag="many").text, "many-1", "many-2", "many-3")
    same = console.send("/console/links/bulk", **everything, do="add_tag", tag="many").text
    assert same.count("was so already") == 3
    ends = {"do": "expire", "expires_at": "2090-01-31T12:30"}
    assert "3 / 3" in console.send("/console/links/bulk", **everything, **ends).text
    assert gateway.link("many-3")["expires_at"] == "2090-01-31T12:30:00Z"
    everything = picked(console.get("/console/links", tag="many").text, "many-1", "many-2", "many-3")
    assert "3 / 3" in console.send("/console/links/bulk", **everything, do="remove_tag", tag="many").text
    listed = console.get("/console/links", search="many-").text
    everything = picked(listed, "many-1", "many-2", "many-3")
    gone = console.send("/console/links/bulk", **everything, do="remove").text
    assert gateway.link("many-1") is None
    again = console.send("/console/links/bulk", **everything, do="remove").text
    assert again.count("The link was removed") == 3
    back = console.send("/console/links/bulk/undo", **picked(gone, "many-1", "many-2", "many-3")).text
    assert "3 / 3" in back
    assert httpx.get(f"{gateway.url}/many-3").status_code == 302


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"do": "add_tag", "tag": "x"}, "No link was selected"),
        ({"do": "destroy", "pick-1": "1 127.0.0.1 bulk-wrong"}, "No link was selected"),
        ({"do": "add_tag", "tag": "", "pick-1": "1 127.0.0.1 bulk-wrong"}, "tag"),
        ({"do": "expire", "expires_at": "x", "pick-1": "1 127.0.0.1 bulk-wrong"}, "must be a date"),
        ({"do": "remove", "pick-1": "1 no.example bulk-wrong"}, "There is nothing here"),
        ({"do": "remove", "pick-1": "x 127.0.0.1 bulk-wrong"}, "was changed meanwhile"),
        ({"do": "remove", "pick-1": "<b>"}, "There is nothing here"),
    ],
)
def test_wrong_bulk_form_changes_nothing(gateway, console, form, words):
    console.create(long_url=TARGET, slug="bulk-wrong")

    answer = console.send("/console/links/bulk", **form)

    assert words in answer.text
    assert gateway.link("bulk-wrong")["version"] == 1


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


def test_list_has_pages_filters_and_orders(gateway, console):
    for number in range(27):
        form = {"long_url": f"https://example.com/{number}", "slug": f"paged-{number:02}", "tags": "paged"}
        assert console.create(**form).status_code == 303

    first = console.get("/console/links", tag="paged", sort="slug")
    following = re.findall(r'href="(/console/links\?[^"]*cursor=[^"]*)"', first.text)[0].replace("&amp;", "&")
    second = console.get(following)

    assert re.findall(r"/(paged-\d\d)</a>", first.text) == [f"paged-{n:02}" for n in range(25)]
    assert re.findall(r"/(paged-\d\d)</a>", second.text) == ["paged-25", "paged-26"]
    assert "Next page" not in second.text
    assert "No link passes these filters" in console.get("/console/links", search="nothing-of-it").text
    assert "paged-00" not in console.get("/console/links", tag="paged", state="disabled").text
    for wrong in ({"state": "x"}, {"sort": "x"}, {"cursor": "x"}, {"search": "a"}, {"domain": "no.example"}):
        answer = console.get("/console/links", **wrong)
        assert answer.status_code == 422, wrong
        assert 'role="alert"' in answer.text


def test_wrong_addresses_are_404(console):
    for query in ({}, {"slug": "no-such"}, {"slug": "a b"}, {"slug": "abc", "domain": "no.example"}):
        for path in ("/console/link", "/console/link/edit", "/console/link/qr"):
            answer = console.get(path, **query)
            assert answer.status_code == 404, (path, query)
            assert "There is nothing here" in answer.text
    assert console.get("/console/no-such").status_code == 404
    assert console.send("/console/link/remove", slug="no-such", version="1").status_code == 404
    assert console.send("/console/link/undo", slug="no-such", version="x").status_code == 404


def test_too_large_a_form_is_a_page(console):
    answer = console.send("/console/links/new", long_url="x" * 70_000)
    assert answer.status_code == 413
    assert "That is too much at once" in answer.text


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
        for path in (
            "/console/domains/new",
            "/console/domains/edit",
            "/console/keys",
            "/console/keys/new",
            "/console/import",
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
        assert most.upload(ROWS, do="import").status_code == 403


def test_history_names_the_key(gateway, console):
    console.create(long_url=TARGET, slug="by-a-key", title="a")
    console.send("/console/link/edit", slug="by-a-key", version="1", long_url=TARGET, title="b", enabled="on")
    key_id = gateway.key.split("_")[1]

    assert gateway.link("by-a-key")["owner"] == key_id
    assert f"by <code>{key_id}</code>" in console.page("by-a-key").text
    assert datetime.now(UTC).strftime("%Y-%m-%d") in console.page("by-a-key").text
