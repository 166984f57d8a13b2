"""The examples of docs/dialects.md run as they stand there."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.integration.dialect_gateway import BASE, speaking, target

PAGE = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text()
SHOWN = "https://hop.example"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    yield from speaking(tmp_path_factory.mktemp("page"))


@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines()])
def test_command_runs(gateway, line):
    environment = {**os.environ, "KEY": gateway.key}
    command = line.replace(SHOWN, gateway.url)

    done = subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.returncode == 0, (command, done.stderr)
    assert done.stdout


def test_sharex_shortens_by_the_described_request(gateway):
    [text] = blocks("json")
    form = json.loads(text.replace(SHOWN, gateway.url).replace("$KEY", gateway.key))
    assert (form["DestinationType"], form["Body"], form["URL"]) == (
        "URLShortener",
        "JSON",
        "{json:short_url}",
    )

    def shorten(url: str) -> httpx.Response:
        # As ShareX puts an input into JSON: escaped, without the quotes.
        body = form["Data"].replace("{input}", json.dumps(url)[1:-1])
        headers = {**form["Headers"], "Content-Type": "application/json"}
        return httpx.request(form["RequestMethod"], form["RequestURL"], content=body, headers=headers)

    url = f'{target()}?q="quoted"'
    first, second, wrong = shorten(url), shorten(url), shorten("not a url")

    assert (first.status_code, second.status_code) == (201, 200)
    short = first.json()["short_url"]
    assert second.json()["short_url"] == short
    visit = httpx.get(short.replace(BASE, gateway.url), headers={"Host": "hop.example"})
    assert visit.status_code == 302
    assert {"title", "detail"} <= set(wrong.json())
