"""The pages for people: their texts, an operator's templates, and what cannot be used as one."""

from __future__ import annotations

import re
import tomllib
from importlib import resources

import pytest

from app.domain.errors import SettingsError
from app.web import errors
from app.web.pages import LAYOUT, MAX_BYTES, NO_PAGES, STATUSES, Pages, languages, load
from app.web.response import Response, check_headers


class Accept:
    """The header as granian shows it."""

    def __init__(self, *lines: str) -> None:
        self._lines = list(lines)

    def get_all(self, _name: str) -> list[str]:
        return self._lines


BROWSER = Accept("text/html,*/*;q=0.8")
PROGRAM = Accept("*/*")


def sent(pages: Pages, problem: Response, accept: Accept = BROWSER) -> tuple[dict[str, str], str]:
    response = pages.negotiated(problem, accept)
    assert response.status == problem.status
    check_headers(response.headers)
    assert len(dict(response.headers)) == len(response.headers)
    return dict(response.headers), response.body.decode()


def refused(folder) -> str:
    with pytest.raises(SettingsError) as error:
        load("en", folder)
    [line] = str(error.value).splitlines()
    assert line.startswith(f"HOPGATE_PAGES: {folder}")
    return line


@pytest.mark.parametrize("language", languages())
def test_language_has_every_text(language):
    file = resources.files("app.web").joinpath(f"texts/{language}.toml")
    texts = tomllib.loads(file.read_text("utf-8"))

    assert texts.keys() == {"root", *map(str, STATUSES)}
    assert all(part.keys() == {"title", "text"} for part in texts.values())
    headers, body = sent(load(language), errors.not_found())
    assert headers["content-language"] == language
    assert f'<html lang="{language}">' in body


def test_languages_ship():
    assert {"de", "en"} <= set(languages())


@pytest.mark.parametrize("language", ["xx", "", "../texts/en", "EN", "é"])
def test_other_language_is_refused(language):
    with pytest.raises(SettingsError, match=r"HOPGATE_LANGUAGE: .* is none of de, en"):
        load(language)


def test_page_keeps_the_headers_of_its_problem():
    pages = load("en")
    headers, _ = sent(pages, errors.overloaded())
    assert headers["retry-after"].isdigit()
    assert headers["vary"] == "accept"
    assert headers["x-robots-tag"] == "noindex"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"
    assert "unsafe" not in headers["content-security-policy"]
    assert "script-src" not in headers["content-security-policy"]
    headers, _ = sent(pages, errors.blocked("http://hop.example/"))
    assert headers["link"] == '<http://hop.example/>; rel="blocked-by"'


def test_program_gets_the_problem():
    problem = errors.not_found()
    headers, body = sent(load("en"), problem, PROGRAM)

    assert headers == {**dict(problem.headers), "vary": "accept"}
    assert body.encode() == problem.body


@pytest.mark.parametrize("response", [errors.server_error("x"), errors.unauthorized(), Response(410)])
def test_others_have_no_page(response):
    assert load("en").negotiated(response, BROWSER) is response
    assert NO_PAGES.negotiated(errors.not_found(), BROWSER) == errors.not_found()


def test_templates_of_the_operator_replace_those_that_ship(tmp_path):
    (tmp_path / "404.html").write_bytes(
        b'\xef\xbb\xbf<!doctype html>\r\n<html lang="$lang"><style media="all">\r\np{color:red}</style>'
        b"<style>p{margin:0}</style><p>Nothing for $$5: ${title}, $status</p><script>alert(1)</script>"
    )
    (tmp_path / LAYOUT).write_text("<!doctype html><title>$title</title><p>Ours: $text")
    (tmp_path / "..data").mkdir()
    pages = load("en", tmp_path)

    headers, body = sent(pages, errors.not_found())
    assert body.startswith('<!doctype html>\n<html lang="en"><style media="all">\np')
    assert "Nothing for $5: No such link, 404" in body
    assert headers["content-security-policy"].count("'sha256-") == 2
    assert "script-src" not in headers["content-security-policy"]
    _, body = sent(pages, errors.gone())
    assert "Ours: It was removed" in body
    assert pages.root is not None
    assert b"Ours: This site forwards" in pages.root.body


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("405.html", b"x", "405.html: the names of templates are 400.html, 404.html"),
        ("404.htm", b"x", "404.htm: the names"),
        ("404.html", b"x" * (MAX_BYTES + 1), "404.html: has more than 65536 bytes"),
        ("404.html", b"\xff", "404.html: is not UTF-8"),
        ("404.html", b"", "404.html: is empty"),
        ("404.html", b" \n", "404.html: is empty"),
        ("404.html", b"costs 5$", r"404.html: has a \$ that begins no placeholder: write \$\$"),
        ("404.html", b"costs $5", r"404.html: has a \$ that begins no placeholder"),
        ("404.html", b"$slug", r"404.html: has the placeholder \$slug, which is none of \$lang, \$status"),
    ],
)
def test_unusable_template_is_one_line(tmp_path, name, content, why):
    (tmp_path / name).write_bytes(content)
    assert re.search(why, refused(tmp_path))


def test_unreadable_folder_is_one_line(tmp_path):
    assert "has none of 400.html" in refused(tmp_path)
    assert "No such file" in refused(tmp_path / "missing")
    (tmp_path / "file").write_text("x")
    assert "Not a directory" in refused(tmp_path / "file")
    (tmp_path / "file").unlink()
    (tmp_path / "404.html").mkdir()
    assert "Is a directory" in refused(tmp_path)
