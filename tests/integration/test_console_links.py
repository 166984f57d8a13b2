"""Links in the console, over HTTP: made, found, changed alone and together, removed and brought back."""

from __future__ import annotations

import html
import re
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.integration.console_gateway import ARRANGEMENTS, TARGET, serving, signed_in
from tests.servers.hopgate import eventually

gateway = pytest.fixture(serving, scope="module", params=ARRANGEMENTS)
console = pytest.fixture(signed_in)


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
        lambda: 'id="total" data-figure="total">3</span>' in console.page("counted").text, 15, "visits"
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
    marked = {
        "long_url": "https://example.com/?a=1&b=2",
        "title": '"> A\r\nX: y',
        "slug": "kept",
        "tags": "not-kept",
    }

    asked = httpx.get(f"{gateway.url}/console/links/new", params=marked)
    page = httpx.get(f"{gateway.url}{asked.headers['location']}").text
    [new] = re.findall(r'name="new" value="([^"]*)"', page)
    wrong = httpx.post(f"{gateway.url}/console/sign-in", data={"key": "no", "new": html.unescape(new)})
    form = {"key": gateway.key, "new": html.unescape(new)}
    signed_in = httpx.post(f"{gateway.url}/console/sign-in", data=form)

    assert f'name="new" value="{new}"' in wrong.text
    place = urlsplit(signed_in.headers["location"])
    assert (signed_in.status_code, place.netloc, place.path) == (303, "", "/console/links/new")
    assert dict(parse_qsl(place.query)) == {name: marked[name] for name in ("long_url", "title", "slug")}


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
