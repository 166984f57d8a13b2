"""The console in a browser: hostile texts in every field and view run nothing."""

from __future__ import annotations

import json

import httpx
import pytest

from tests.integration.console_session import ConsoleSession
from tests.integration.console_window import (
    MARKS,
    check_nothing_ran,
    opened,
    post,
    serving,
    sign_in,
    submit,
    watch,
)
from tests.servers.hopgate import eventually

pytestmark = MARKS
window = pytest.fixture(opened, scope="module")
gateway = pytest.fixture(serving, scope="module")
# Each calls `ran` if it runs.
HOSTILE = (
    "<script>ran('script')</script>",
    '"><img src=x onerror=ran(1)>',
    "'><svg onload=ran(2)>",
    "</textarea></title></style><script>ran(3)</script>",
    "javascript:ran(4)",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    '" autofocus onfocus="ran(5)" x="',
    "<a href='data:text/html,<script>ran(6)</script>'>x</a>",
    "<style>@import 'https://evil.example/x.css'</style>",
    "<base href=https://evil.example/><form action=//evil.example>",
    "<iframe srcdoc='<script>parent.ran(7)</script>'></iframe>",
    "\u202egnp.exe &lt;b&gt; &#x3c;script&#x3e;",
)


def test_hostile_texts_run_nothing(window, gateway):
    with ConsoleSession(gateway, gateway.key) as console, httpx.Client() as visitor:
        for number, text in enumerate(HOSTILE):
            slug = f"hostile-{number}"
            made = console.create(
                long_url=f"https://example.com/?q={text}",
                slug=slug,
                title=text,
                tags=text.replace(",", ""),
                utm_source=text,
            )
            if made.status_code != 303:
                # A rule of links refuses the text in some field: as a title alone it may stand.
                made = console.create(long_url="https://example.com/", slug=slug, title=text)
            if made.status_code != 303:
                assert made.status_code == 422
                made = console.create(long_url="https://example.com/", slug=slug)
            edit = {"slug": slug, "version": "1", "long_url": "https://example.com/", "enabled": "on"}
            assert console.send("/console/link/edit", **edit, title=f"{number}").status_code == 303
            sent = {"User-Agent": text, "Referer": f"https://evil.example/{text}", "Accept-Language": text}
            as_bytes = [(name.encode(), value.encode()) for name, value in sent.items()]
            visitor.get(f"{gateway.url}/{slug}", headers=as_bytes)
    named = gateway.run("keys", "create", HOSTILE[1], "--scope", "admin")
    sign_in(window, gateway, named)
    watch(window)
    opened = 0
    for number, text in enumerate(HOSTILE):
        typed = json.dumps(text)
        for path, field in (
            ("/console/links?sort=-created&", "search"),
            ("/console/links?", "tag"),
            ("/console/links?", "state"),
            ("/console/links?", "domain"),
            ("/console/links?", "cursor"),
            ("/console/links/new?", "long_url"),
            ("/console/links/new?", "title"),
            ("/console/tags?", "cursor"),
            ("/console/domains/edit?", "host"),
            ("/console/link?", "slug"),
            (f"/console/link?slug=hostile-{number}&", "range"),
            (f"/console/link?slug=hostile-{number}&", "done"),
            (f"/console/link?slug=hostile-{number}&range=24h&", "x"),
            (f"/console/link/edit?slug=hostile-{number}&", "x"),
            ("/console/sign-in?", "link"),
            ("/console/sign-in?", "why"),
            ("/console?", "x"),
        ):
            window.open(f"{gateway.url}{path}{httpx.QueryParams({field: text})}")
            opened += 1
            check_nothing_ran(window, gateway, (path, field, text))
        # A form that is refused shows what was typed.
        window.open(f"{gateway.url}/console/links/new")
        window.run(f"""
            const fields = 'main input:not([type=hidden]):not([type=datetime-local])';
            for (const one of document.querySelectorAll(fields)) one.value = {typed};
        """)
        submit(window, "main form")
        eventually(lambda: "Nothing was stored" in window.text(), 10, "the form is refused")
        assert window.run("return window.name") == "", text
        assert window.run("return document.querySelector('#title').value") == text
    assert opened == len(HOSTILE) * 17


def test_hostile_forms_run_nothing(window, gateway):
    with ConsoleSession(gateway, gateway.key) as console:
        for number, text in enumerate(HOSTILE):
            made = console.create(long_url="https://example.com/", slug=f"tagged-{number}", tags=text)
            assert made.status_code in (303, 422)
        assert console.create(long_url="https://example.com/", slug="edited-hostile").status_code == 303
        assert console.send("/console/domains/new", host="hostile.example").status_code == 303
    sign_in(window, gateway)
    watch(window)
    pages = ("root_url", "not_found_url", "expired_url", "min_slug_length", "redirect_code", "robots")
    sent: list[tuple[str, dict[str, str]]] = []
    for text in HOSTILE:
        restrictions = dict.fromkeys(("domains", "allowed_addresses", "rate_limit", "expires_at"), text)
        forms = [
            (
                "/console/links/new/check",
                {"long_url": f"https://example.com/?{text}", "slug": text, "title": text},
            ),
            (
                "/console/links/bulk",
                {"do": "add_tag", "tag": text, "pick-1": text, "pick-2": f"1 {text} {text}"},
            ),
            ("/console/links/bulk/undo", {"pick-1": text, "pick-2": f"1 {text} {text}", "back": text}),
            ("/console/link/edit/check", {"slug": "edited-hostile", "long_url": text, "title": text}),
            ("/console/tags/rename", {"tag": text, "name": f"{text},\n"}),
            ("/console/tags/remove", {"tag": f"{text},\n"}),
            ("/console/domains/new", {"host": text, **dict.fromkeys(pages, text)}),
            ("/console/domains/edit", {"host": "hostile.example", **dict.fromkeys(pages, text)}),
            ("/console/domains/remove", {"host": text}),
            ("/console/keys/rotate", {"key_id": text, "grace": text}),
            ("/console/keys/revoke", {"key_id": text}),
            ("/console/keys/new", {"name": text, f"scope-{text}": "on", **restrictions}),
            ("/console/keys/new", {"name": text, "scope-stats:read": "on"}),
            ("/console/import", {"do": "check", "format": text, "ignore": text, "domain": text}),
            ("/console/import", {"do": "check", "ignore": text}),
        ]
        for path, fields in forms:
            file = f"long_url,title,{text}\n{text},x,x\nhttps://example.com/,{text},x\n"
            post(window, gateway, path, fields, file if path == "/console/import" else None)
            sent.append((path, fields))
            check_nothing_ran(window, gateway, (path, fields))
    for path in ("/console/tags", "/console/keys", "/console/links?search=tagged"):
        window.open(f"{gateway.url}{path}")
        check_nothing_ran(window, gateway, path)
    assert len(sent) == len(HOSTILE) * 15
