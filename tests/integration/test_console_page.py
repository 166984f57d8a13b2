"""The console in a browser: every view, with scripts and without, live numbers, and the map."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, closing

import httpx
import pytest

from app.console.live import LINK, MOST_EACH
from tests.integration import places
from tests.integration.console_session import ConsoleSession
from tests.integration.console_window import (
    FIREFOX,
    MARKS,
    SCREENS,
    check_nothing_ran,
    fill,
    opened,
    path_of,
    serving,
    shows,
    sign_in,
    submit,
    watch,
)
from tests.servers.hopgate import eventually

pytestmark = MARKS
window = pytest.fixture(opened, scope="module")
gateway = pytest.fixture(serving, scope="module")


def test_walk_through_every_view(window, gateway):
    sign_in(window, gateway)
    window.run("document.querySelector('nav a[href$=new]').click()")
    eventually(lambda: path_of(window) == "/console/links/new", 20, "the form is shown")
    fill(
        window,
        long_url="https://example.com/in-a-browser",
        slug="in-a-browser",
        tags="walked",
        utm_medium="walk",
        expires_at="2090-01-31T12:30:15",
    )
    submit(window, "main form")
    shows(window, "The link is there.")
    assert "2090-01-31 12:30" in window.text()
    assert "https://example.com/in-a-browser?utm_medium=walk" in window.text()
    assert window.run("return document.querySelector('.qr').naturalWidth") > 0
    assert window.run("return !document.querySelector('button[data-copies]').hidden") is True
    assert window.run("return document.styleSheets[0].cssRules.length") > 20

    visit = httpx.get(f"{gateway.url}/in-a-browser")
    assert visit.headers["location"] == "https://example.com/in-a-browser?utm_medium=walk"
    own = f"{gateway.url}/console/link?slug=in-a-browser"

    def is_counted() -> bool:
        window.open(own)
        return bool(window.run("return document.querySelector('#total').textContent") == "1")

    eventually(is_counted, 20, "the visit is shown")
    window.run("document.querySelector('main a.button').click()")
    eventually(lambda: path_of(window) == "/console/link/edit", 20, "the form is shown")
    fill(window, title="A new title")
    submit(window, "main form")
    shows(window, "The link is changed.")
    submit(window, "form[action$=remove]")
    shows(window, "The link is removed")
    submit(window, "form[action$=undo]")
    shows(window, "The last change is undone.")
    assert "A new title" in window.text()

    window.open(f"{gateway.url}/console/links?tag=walked")
    window.run("document.querySelector('button[data-picks]').click()")
    assert window.run("return document.querySelectorAll('main :checked[type=checkbox]').length") == 1
    fill(window, do="add_tag")
    window.run("document.querySelector('#bulk-tag').value = 'together'")
    submit(window, "form[action$=bulk]")
    shows(window, "Done: 1 / 1")
    submit(window, "form[action$=undo]")
    titled = "return document.title.startsWith('Undo')"
    eventually(lambda: window.run(titled), 20, "the undo is shown")
    assert "Done: 1 / 1" in window.text()

    window.open(f"{gateway.url}/console/import")
    window.run("""
        const chosen = new DataTransfer();
        const rows = 'long_url,slug\\nhttps://example.com/,walked-in\\nno url,walked-out\\n';
        chosen.items.add(new File([rows], 'links.csv'));
        document.querySelector('#file').files = chosen.files;
        document.querySelector('[value=check]').click();
    """)
    shows(window, "Nothing was stored.")
    assert "1 × long_url" in window.text()
    is_ready = "return !document.querySelector('[value=import]').disabled"
    eventually(lambda: window.run(is_ready), 20, "the check is over")
    window.run("document.querySelector('[value=import]').click()")
    shows(window, "The import is done.")
    assert httpx.get(f"{gateway.url}/walked-in").status_code == 302
    assert httpx.get(f"{gateway.url}/walked-out").status_code == 404

    window.open(f"{gateway.url}/console/keys/new")
    fill(window, name="walking")
    window.run("document.querySelector('[name=\"scope-links:read\"]').checked = true")
    submit(window, "main form")
    shows(window, "It is shown this once")
    key = window.run("return document.querySelector('#secret').value")
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.get(f"{gateway.url}/api/v1/links", headers=headers).status_code == 200
    window.run("document.querySelector('form[action$=revoke]').requestSubmit()")
    shows(window, "The key is revoked.")
    is_over = lambda: httpx.get(f"{gateway.url}/api/v1/links", headers=headers).status_code == 401  # noqa: E731
    eventually(is_over, 20, "the key is over")


def test_visits_are_shown_live(window, gateway, tmp_path):
    """Some of its screenshots are in docs/images."""
    with ConsoleSession(gateway, gateway.key) as console:
        assert console.create(long_url="https://example.com/", slug="seen-live").status_code == 303
        agent = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}
        httpx.get(f"{gateway.url}/seen-live", headers=agent)
        eventually(lambda: "Firefox" in console.page("seen-live").text, 20, "the first visit is counted")
    sign_in(window, gateway)
    window.open(f"{gateway.url}/console/link?slug=seen-live")
    window.run("document.documentElement.dataset.opened = 'once'")
    total = "return document.querySelector('#total').textContent"
    shows(window, "Live: new visits")
    assert window.run(total) == "1"

    httpx.get(f"{gateway.url}/seen-live", headers=agent)
    began = time.monotonic()
    eventually(lambda: window.run(total) == "2", 30, "the visit is shown")

    print(f"shown after {time.monotonic() - began:.1f} s")
    press = "document.querySelector('[data-live] button').click()"
    window.run(press)
    shows(window, "Paused:")
    visit_and_wait(gateway, "seen-live", ("3", "4"), agent)
    assert window.run(total) == "2"
    window.run(press)
    eventually(lambda: window.run(total) == "4", 30, "the next visits are shown")
    window.hide()
    assert window.run("return document.hidden") is True
    visit_and_wait(gateway, "seen-live", ("5", "6"), agent)
    assert window.run(total) == "4"
    window.show()
    eventually(lambda: window.run(total) == "6", 30, "the last visits are shown")
    for screen, (width, height) in SCREENS.items():
        window.look(width=width, height=height, dark=screen == "phone")
        window.run("document.querySelector('.pages').previousElementSibling.scrollIntoView()")
        (tmp_path / f"live-{screen}.png").write_bytes(window.screenshot())
    assert window.run("return document.documentElement.dataset.opened") == "once"


def visit_and_wait(gateway, slug: str, totals: tuple[str, ...], agent: dict[str, str]) -> None:
    """Visit a link once for each of *totals*, and wait until a stream has it: others have the one before."""
    with (
        ConsoleSession(gateway, gateway.key) as console,
        console.http.stream("GET", LINK, params={"slug": slug}) as answer,
    ):
        lines = answer.iter_lines()
        for total in totals:
            httpx.get(f"{gateway.url}/{slug}", headers=agent)
            next(line for line in lines if f'"total":"{total}"' in line)


def test_page_stands_still_without_its_stream_and_says_so(window, gateway):
    with ConsoleSession(gateway, gateway.key) as console:
        assert console.create(long_url="https://example.com/", slug="not-live").status_code == 303
    sign_in(window, gateway)
    cookies = {one["name"]: one["value"] for one in window.cookies()}
    opened: list[httpx.Response] = []
    with httpx.Client(base_url=gateway.url, cookies=cookies) as client:
        token = window.run("return document.querySelector('[name=form_token]').value")
        with ExitStack() as streams:

            def are_full() -> bool:
                asked = client.build_request("GET", LINK, params={"slug": "not-live"})
                answer = client.send(asked, stream=True)
                if answer.status_code == 200:
                    opened.append(streams.enter_context(closing(answer)))
                else:
                    answer.close()
                return len(opened) == MOST_EACH

            # The page has that of the overview until this one is shown.
            window.open(f"{gateway.url}/console/links")
            eventually(are_full, 30, "every place is taken")
            window.open(f"{gateway.url}/console/link?slug=not-live")
            shows(window, "Not live just now")
            assert window.run("return document.querySelector('#total').textContent") == "0"
        eventually(lambda: "Live: new visits" in window.text(), 40, "the stream is opened again")
        client.post("/console/sign-out", data={"form_token": token})
    shows(window, "No longer live")


def test_forms_work_without_a_script(window, gateway):
    sign_in(window, gateway)
    window.run_scripts_of_pages(are_run=False)
    try:
        window.open(f"{gateway.url}/console/links/new")
        assert window.run("return document.querySelector('[data-checked]').hidden") is True
        fill(window, long_url="https://example.com/", slug="without-script", utm_source="mail")
        window.run("document.querySelector('[formaction]').click()")
        shows(window, "https://example.com/?utm_source=mail")
        assert "is free" in window.text()
        window.run("document.querySelector('main button').click()")
        shows(window, "The link is there.")
        assert window.run("return document.querySelector('[data-live]').hidden") is True
        window.open(f"{gateway.url}/console/import")
        window.run("""
            const chosen = new DataTransfer();
            chosen.items.add(new File(['long_url,slug\\nno url,never\\n'], 'links.csv'));
            document.querySelector('#file').files = chosen.files;
            document.querySelector('[value=check]').click();
        """)
        shows(window, "Nothing was stored.")
        assert path_of(window) == "/console/import"
        assert window.run("return document.querySelector('#file').files.length") == 0
    finally:
        window.run_scripts_of_pages(are_run=True)


def test_form_tells_the_target_and_the_slug_while_it_is_typed(window, gateway):
    with ConsoleSession(gateway, gateway.key) as console:
        assert console.create(long_url="https://example.com/", slug="typed-taken").status_code == 303
    sign_in(window, gateway)
    window.open(f"{gateway.url}/console/links/new")

    def typed(slug: str) -> None:
        window.run(f"""
            document.querySelector('#long_url').value = 'https://example.com/';
            document.querySelector('#utm_source').value = '<b>mail';
            document.querySelector('#slug').value = {json.dumps(slug)};
            document.querySelector('#slug').dispatchEvent(new Event('input', {{bubbles: true}}));
        """)

    typed("typed-taken")

    said = "return document.querySelector('#slug-said').textContent"
    eventually(lambda: "is not free" in window.run(said), 10, "the slug is said to be taken")
    assert window.run("return document.querySelector('#slug').ariaInvalid") == "true"
    target = "https://example.com/?utm_source=%3Cb%3Email"
    assert window.run("return document.querySelector('[data-target]').innerText") == target
    typed("typed-free")
    eventually(lambda: window.run(said) == "is free", 10, "the slug is said to be free")
    assert window.run("return document.querySelector('#slug').ariaInvalid") is None


def test_map_shades_countries_by_their_visits(window, gateway):
    with ConsoleSession(gateway, gateway.key) as console:
        assert console.create(long_url="https://example.com/", slug="mapped").status_code == 303
        for code, visits in (("AT", 1), ("DE", 3), ("MT", 1)):
            for _ in range(visits):
                headers = {"X-Forwarded-For": places.ADDRESSES[code], "User-Agent": FIREFOX}
                httpx.get(f"{gateway.url}/mapped", headers=headers)
        eventually(lambda: "Malta: 1" in console.page("mapped").text, 20, "the visits are described")
    sign_in(window, gateway)
    watch(window)
    shown = []

    for dark in (False, True):
        window.look(width=1280, height=800, dark=dark)
        window.open(f"{gateway.url}/console/link?slug=mapped")
        drawn = "return document.querySelector('.map .land').getBBox().width > 0"
        eventually(lambda: window.run(drawn), 10, "the map is drawn")  # noqa: B023
        shown.append(
            window.run("""
                const fill = one => getComputedStyle(one).fill;
                const land = fill(document.querySelector('.map .land'));
                return [...document.querySelectorAll('.map g')].map(one => {
                  const use = one.querySelector('use'), box = use.getBBox();
                  return [one.getAttribute('aria-label'), box.width > 0 && box.height > 0, fill(use), land];
                });
            """)
        )
    light, night = shown
    assert [row[0] for row in light] == ["Germany: 3", "Austria: 1", "Malta: 1"]
    assert all(row[1] for row in (*light, *night))
    assert light[1][2] == light[2][2]
    assert len({light[0][2], light[1][2], light[0][3], night[0][2], night[1][2], night[0][3]}) == 6
    check_nothing_ran(window, gateway, "map")
