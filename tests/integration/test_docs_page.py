"""The manual of the API on a real gateway: its commands run, and a browser shows it without the network."""

from __future__ import annotations

import html
import json
import re
import subprocess
from urllib.parse import urlsplit

import httpx
import pytest

from tests.integration.conftest import EmbeddedGateway
from tests.servers import browser
from tests.servers.hopgate import UNLIMITED, make_key

# In an order in which each finds what it needs; the manual names what each answers with on success.
ORDER = (
    *("addDomain", "listDomains", "getDomain", "changeDomain", "removeDomain"),
    *(
        "createLink",
        "listLinks",
        "getLink",
        "getLinkQr",
        "changeLink",
        *("getLinkStats", "getStats"),
        "invalidate",
        "removeLink",
    ),
    *("getLinkHistory", "undoLink", "addAlias", "removeAlias", "renameLink"),
    *("createLinks", "changeLinks", "removeLinks", "listTags", "renameTag", "removeTag"),
    *("createKey", "listKeys", "rotateKey", "revokeKey", "getMe"),
    *("addWebhook", "listWebhooks", "getWebhook", "changeWebhook", "rotateWebhook", "testWebhook"),
    *("listDeliveries", "replayWebhook", "removeWebhook", "followEvents"),
    *("addBlocks", "listBlocks", "unblockHost", "unblockSlug"),
    *("importLinks", "exportLinks"),
    "getStats",
)
# They answer with lines.
FILES = ("importLinks", "exportLinks", "followEvents")


@pytest.fixture(scope="module")
def manual(embedded) -> str:
    answer = httpx.get(f"{embedded.url}/docs?utm=x")
    assert answer.status_code == 200
    return answer.text


def examples(manual: str) -> dict[str, str]:
    sections = re.findall(r'<h3 id="(\w+)">.*?<pre>(.*?)</pre>', manual, re.DOTALL)
    return {name: html.unescape(command) for name, command in sections}


def test_commands_of_the_manual_run_as_they_stand(tmp_path, manual):
    """On a gateway of its own: the slugs of the manual are free there."""
    settings = {
        "HOPGATE_DATA_DIR": str(tmp_path / "data"),
        "HOPGATE_BASE_URL": "http://hop.example",
        **UNLIMITED,
    }
    with EmbeddedGateway(settings, tmp_path) as gateway:
        run_examples(manual, urlsplit(gateway.url).netloc, make_key(settings))


def run_examples(manual: str, address: str, admin_key: str) -> None:
    found = examples(manual)
    assert set(ORDER) == set(found)
    made: dict[str, str] = {}

    for name in ORDER:
        command = found[name].replace("WEBHOOK_ID", made.get("webhook_id", ""))
        command = command.replace("KEY_ID", made.get("key_id", ""))
        if name == "followEvents":
            command += " --max-time 2"
        # The base URL of this gateway leads nowhere.
        gateway = f"--connect-to ::{address}"
        shell = ["bash", "-c", f'{command} {gateway} --silent --write-out "\n%{{http_code}}"']
        run = subprocess.run(
            shell, env={"HOPGATE_KEY": admin_key, "PATH": "/usr/bin:/bin"}, capture_output=True, timeout=30
        )
        body, _, status = run.stdout.decode().rpartition("\n")
        assert status.startswith("2"), (name, body)
        is_read = body.startswith("{") and name not in FILES
        made |= json.loads(body) if is_read else {}


@pytest.mark.usefixtures("manual")
def test_manual_is_read_like_any_page(embedded):
    head = httpx.head(f"{embedded.url}/docs")

    assert head.status_code == 200
    assert head.headers["content-type"] == "text/html; charset=utf-8"
    assert head.content == b""
    assert httpx.post(f"{embedded.url}/docs").status_code == 405


@pytest.mark.skipif(bool(browser.missing()), reason=f"needs {browser.missing()}")
def test_browser_shows_the_manual_and_fetches_nothing_else(embedded):
    with browser.Browser() as window:
        window.look(width=390, height=844, dark=True)
        window.open(f"{embedded.url}/docs")

        assert "Make a link" in window.text()
        assert window.run("return performance.getEntriesByType('resource').length") == 0
        # The style applies, so the policy names its digest.
        assert window.run("return getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
        assert window.run("return document.documentElement.scrollWidth") <= 390
