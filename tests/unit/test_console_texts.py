"""The texts and the templates of the console."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import MagicMock
from urllib.parse import unquote

import pytest

from app.console.gate import Gate
from app.console.overview import bookmarklet
from app.console.rendering import Pages, Viewer, texts
from app.domain.domains import DomainIndex
from app.domain.errors import Unavailable
from app.web import errors

FOLDER = Path(__file__).parents[2] / "app" / "console"
LANGUAGES = sorted(path.stem for path in (FOLDER / "texts").iterdir())


def test_languages_have_the_same_texts():
    assert LANGUAGES == ["de", "en"]
    assert set(texts("de")) == set(texts("en"))
    assert [name for name in texts("en") if not texts("en")[name] or not texts("de")[name]] == []


def test_every_text_of_a_template_is_there():
    named = set()
    for path in (FOLDER / "templates").iterdir():
        named |= set(re.findall(r"\bt\.(?!get\b)(\w+)", path.read_text()))
    assert len(named) > 50
    assert named - set(texts("en")) == set()
    # Jinja finds these on the dictionary first.
    assert named & set(dir({})) == set()


def test_language_without_texts_is_shown_in_english():
    assert texts("xx") == texts("en")


def test_no_template_has_a_style_or_a_script_of_its_own():
    for path in (FOLDER / "templates").iterdir():
        assert not re.search(
            r"\sstyle=|<style|<script>|\son\w+=|\|\s*safe|https?://\S*\.js", path.read_text()
        )


@pytest.mark.parametrize("query", [{"a": "&b=c", "d": ""}, {"a": "é ", "e": None}])
def test_addresses_are_encoded(query):
    address = Pages("en", "/go").url("/console", **query)
    assert address.startswith("/go/console?a=%")
    assert "&" not in address


def test_bookmark_opens_the_form_of_this_service_and_holds_nothing_else():
    code = unquote(bookmarklet("https://hop.example/go").removeprefix("javascript:"))

    assert code == (
        'void(open("https://hop.example/go/console/links/new?long_url="+encodeURIComponent(location.href)'
        "+'&title='+encodeURIComponent(document.title)))"
    )


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (errors.overloaded(), "Temporarily unavailable"),
        (
            errors.unavailable(Unavailable("store", "away"), may_have_written=True),
            "may or may not have taken",
        ),
        (errors.forbidden("links:read"), "The scope links:read is missing."),
        (errors.gone(), "The link was removed"),
        (errors.server_error("abc"), "Something went wrong on our side"),
        (errors.length_required(), "The length is missing"),
    ],
)
def test_problem_becomes_a_page(problem, words):
    url = "http://hop.example"
    gate = Gate(MagicMock(), Pages("en", ""), DomainIndex(url), MagicMock(), public_url=url)

    page = gate.problem(problem)

    assert page.status == problem.status
    assert words in page.body.decode()
    headers = dict(page.headers)
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-store"
    assert headers.get("retry-after") == dict(problem.headers).get("retry-after")
    assert gate.problem(page) == page


async def test_growing_page_shows_each_part_once_it_is_there():
    pages, told = Pages("en", ""), []

    async def parts():
        for number in range(2):
            told.append(number)
            yield f"<p>{number}</p>"

    viewer = Viewer(MagicMock(), "token")
    form = {"format": "<!-- grows -->", "ignore": "<!-- grows -->", "domain": "", "update": ""}
    page = pages.growing(
        "import.html", viewer, parts(), form=form, error="", formats=[], hosts=["hop.example"], most=64
    )

    assert page.stream is not None
    head = await anext(page.stream)
    assert told == []
    assert head.count(b"&lt;!-- grows --&gt;") == 1
    assert b'name="form_token" value="token"' in head
    assert await anext(page.stream) == b"<p>0</p>"
    assert told == [0]
    rest = [part async for part in page.stream]
    assert rest[0] == b"<p>1</p>"
    assert rest[1].rstrip().endswith(b"</html>")
