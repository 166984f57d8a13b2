"""Commands with HOPGATE_URL: what they do elsewhere is what they do on the gateway's own machine."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
import typer

from app import cli as program
from app.commands.remote import COMMANDS
from tests.integration.api_calls import fresh_slug
from tests.integration.every_command import commands, required
from tests.servers.hopgate import eventually, make_key
from tests.servers.ports import free_ports
from tests.servers.scripted import Reply, ScriptedServer

TARGET = "https://example.com/page"
ANYWHERE = {"keys generate", "top"}


@pytest.fixture
def elsewhere(embedded, admin_key, tmp_path):
    """Settings of a machine without a store."""
    return {"HOPGATE_URL": embedded.url, "HOPGATE_KEY": admin_key, "HOPGATE_DATA_DIR": str(tmp_path / "none")}


@pytest.fixture
def run(cli, elsewhere):
    def of(*arguments, **settings):
        return cli({**elsewhere, **settings}, *arguments)

    return of


@pytest.fixture
def both(cli, run, embedded):
    """Runs a command on the gateway's machine, then elsewhere, and compares what they say."""

    def of(*arguments):
        here, there = cli(embedded.settings, *arguments), run(*arguments)
        assert (there.returncode, there.stdout) == (here.returncode, here.stdout)
        home = str(Path(embedded.settings["HOPGATE_DATA_DIR"]) / "hopgate.db")
        # What is wrong with the options themselves has to do with no store, and may name it.
        said = [
            one.stderr.replace(name, "X").replace(kind, "").removesuffix(" (X)\n")
            for one, name, kind in ((here, home, "store: "), (there, embedded.url, "gateway: "))
        ]
        assert said[0].strip() == said[1].strip()
        return there

    return of


def done(outcome):
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def failed(outcome):
    """Return the one line that a command ends with."""
    assert outcome.returncode == 1
    assert outcome.stdout == ""
    [line] = outcome.stderr.splitlines()
    return line.removeprefix("hopgate: ")


def test_link_from_create_to_undo(run, both, embedded):
    slug = fresh_slug()
    options = ("--tag", "a", "--expires-in", "7d", "--max-visits", "9", "--title", "ä")
    made = run("links", "create", TARGET, "--slug", slug, *options)
    assert done(made) == f"http://hop.example/{slug}\n"
    assert made.stderr == f"hopgate: using {embedded.url}\n"
    shown = json.loads(done(both("links", "get", slug)))
    assert (shown["tags"], shown["max_visits"], shown["title"]) == (["a"], 9, "ä")

    done(run("links", "edit", slug, "--no-tags", "--max-visits", "none", "--expires-at", "none"))
    shown = json.loads(done(both("links", "get", slug, "--json")))
    assert (shown["tags"], shown["max_visits"], shown["expires_at"]) == ([], None, None)
    assert f"{slug} is at version 2" in failed(
        both("links", "edit", slug, "--title", "x", "--if-version", "1")
    )
    both("links", "stats", slug)
    both("links", "stats", slug, "--json")
    assert done(run("links", "delete", slug)) == f"{slug} is deleted\n"
    assert f"{slug} was removed" in failed(both("links", "get", slug))
    assert done(run("links", "undo", slug)) == f"http://hop.example/{slug}\n"
    assert done(run("links", "undo", slug)) == f"{slug} is deleted again\n"
    both("links", "history", slug)
    both("links", "history", slug, "--limit", "2")
    both("links", "history", slug, "--json")


def test_key_that_may_not_read_is_said_what_was_done(run, embedded):
    key = make_key(embedded.settings, "links:write")
    slug = fresh_slug()
    done(run("links", "create", TARGET, "--slug", slug, HOPGATE_KEY=key))

    assert done(run("links", "edit", slug, "--title", "x", HOPGATE_KEY=key)) == f"{slug} is changed\n"
    assert done(run("links", "undo", slug, HOPGATE_KEY=key)) == f"{slug} is undone\n"


def test_listings(both, run):
    tag = fresh_slug()
    for n in range(3):
        done(run("links", "create", f"{TARGET}/{tag}/{n}", "--tag", tag, "--title", f"t{n}"))

    assert done(both("links", "list", "--tag", tag, "--count")).count("\n") == 3
    both("links", "list", "--tag", tag, "--limit", "2", "--sort", "title")
    both("links", "list", "--tag", tag, "--state", "live", "--json")
    both("links", "list", "--tag", "never", "--count")
    assert done(both("links", "search", f"{tag}/1")).count("\n") == 1
    for wrong in (["--sort", "x"], ["--created-since", "x"], ["--state", "x"]):
        failed(both("links", "list", *wrong))
    failed(both("links", "search"))


def test_owners_and_targets_of_a_link(both, run):
    slug, tag = fresh_slug(), fresh_slug()
    made = json.loads(done(run("keys", "create", "x", "--json")))
    done(run("links", "create", TARGET, "--slug", slug, "--tag", tag, "--utm-source", "mail"))

    done(
        run("links", "edit", slug, "--owner", made["key_id"], "--robots", "noindex", "--expired-url", TARGET)
    )
    shown = json.loads(done(both("links", "get", slug)))
    assert (shown["owner"], shown["robots"], shown["expired_url"]) == (made["key_id"], "noindex", TARGET)
    assert shown["long_url"].endswith("?utm_source=mail")
    assert done(both("links", "list", "--tag", tag, "--owner", "none")) == ""
    assert slug in done(both("links", "list", "--tag", tag, "--owner", made["key_id"]))
    emptied = ("--robots", "none", "--expired-url", "none", "--utm-source", "none")
    done(run("links", "edit", slug, "--owner", "none", *emptied))
    shown = json.loads(done(both("links", "get", slug)))
    assert (shown["owner"], shown["robots"], shown["long_url"]) == (None, None, TARGET)
    assert slug in done(both("links", "list", "--tag", tag, "--owner", "none"))


def test_stats_tell_what_visits_looked_like(both, run, visitor):
    slug = fresh_slug()
    done(run("links", "create", TARGET, "--slug", slug))
    visitor.get(f"/{slug}", headers={"User-Agent": "curl/8.5.0"})
    eventually(lambda: "0 people, 1 bot," in done(run("links", "stats", slug)), every=0.5)

    assert "\nbot: " in done(both("links", "stats", slug))
    assert "bot,,curl,1\n" in done(both("links", "stats", slug, "--csv"))
    assert json.loads(done(both("links", "stats", slug, "--json")))["visits"]["bots"] == 1
    assert "\nbot: " in done(both("stats", "--top", "250"))
    assert "\nbot: " in done(both("links", "stats", slug, "--top", "1"))
    assert "bot,,curl," in done(both("stats", "--domain", "hop.example", "--csv"))
    assert json.loads(done(both("stats", "--tag", "never", "--json")))["visits"]["bots"] == 0
    assert "is no domain" in failed(both("stats", "--domain", "never.example"))


def test_what_is_wrong_is_said_as_at_home(both, run):
    slug = fresh_slug()
    done(run("links", "create", TARGET, "--slug", slug))

    for arguments in (
        ("get", "never"),
        ("delete", "never"),
        ("stats", "never"),
        ("history", "never"),
        ("undo", "never"),
        ("create", "nowhere"),
        ("create", TARGET, "--max-visits", "x"),
        ("create", TARGET, "--expires-in", "x"),
        ("create", TARGET, "--expires-in", "7d", "--expires-at", "2100-01-01T00:00:00Z"),
        ("edit", slug),
        ("edit", slug, "--tag", "a", "--no-tags"),
    ):
        failed(both("links", *arguments))
    assert "slug is taken" in failed(run("links", "create", TARGET, "--slug", slug))


def test_domains(both, run):
    host = f"{fresh_slug()}.example"
    assert done(run("domains", "add", host, "--root-url", TARGET, "--ignore-case")) == f"{host}\n"
    both("domains", "list")
    both("domains", "list", "--json")
    both("domains", "edit", host, "--root-url", "none", "--min-slug-length", "5")
    rules = ("--slug-length", "9", "--multi-segment", "--unicode", "--redirect-code", "301")
    shown = json.loads(done(run("domains", "edit", host, *rules, "--robots", "disallow", "--json")))
    assert (shown["slug_length"], shown["redirect_code"], shown["robots"]) == (9, 301, "disallow")
    shown = json.loads(done(run("domains", "edit", host, "--slug-length", "none", "--json")))
    assert shown["slug_length"] is None
    for wrong in (["--slug-length", "x"], ["--robots", "x"]):
        failed(both("domains", "edit", host, *wrong))
    failed(both("domains", "edit", host))
    failed(both("domains", "edit", "never.example", "--min-slug-length", "5"))
    done(run("links", "create", TARGET, "--domain", host, "--slug", "There"))
    assert f"{host}/there" in done(both("links", "list", "--domain", host))
    assert "has links" in failed(run("domains", "remove", host))
    assert done(run("links", "delete", "There", "--domain", host)) == f"{host}/There is deleted\n"
    assert done(run("domains", "remove", host)) == f"{host} is served no more\n"
    failed(both("domains", "remove", host))


def test_keys(both, run, embedded):
    made = json.loads(done(run("keys", "create", "x", "--expires-in", "1d", "--json")))
    assert made["scopes"] == ["links:read", "links:write"]
    assert done(run("links", "list", HOPGATE_KEY=made["key"])) is not None
    both("keys", "list")
    restrictions = ("--own-links", "--domain", "hop.example", "--allow-address", "203.0.113.0/24")
    shown = run("keys", "create", "narrow", *restrictions, "--rate-limit", "5 per minute", "--json")
    narrow = json.loads(done(shown))
    assert (narrow["own_links"], narrow["domains"]) == (True, ["hop.example"])
    assert (narrow["allowed_addresses"], narrow["rate_limit"]) == (["203.0.113.0/24"], "5/min")
    assert "(own links)  (links of hop.example)" in done(both("keys", "list"))
    both("keys", "list", "--json")
    assert made["key"] not in done(run("keys", "list", "--json"))
    assert done(run("keys", "revoke", made["key_id"])) == f"{made['key_id']} is revoked\n"
    assert "is no key of that gateway" in failed(run("links", "list", HOPGATE_KEY=made["key"]))
    failed(both("keys", "revoke", "never-there"))
    reader = make_key(embedded.settings, "links:read")
    assert "the scope admin is missing" in failed(run("keys", "list", HOPGATE_KEY=reader)).lower()


def test_blocks(both, run):
    host, slug = f"{fresh_slug()}.example", fresh_slug()
    assert done(run("blocks", "add", host, host, "--slug", slug)) == "2 blocks added, 0 there already\n"
    both("blocks", "add", host)
    both("blocks", "list")
    both("blocks", "list", "--json")
    assert done(run("blocks", "remove", host)) == "1 block removed, 0 not there\n"
    assert both("blocks", "remove", host).returncode == 1
    assert json.loads(done(run("blocks", "remove", "--slug", slug, "--json"))) == {"removed": 1, "unknown": 0}
    failed(both("blocks", "add"))
    failed(both("blocks", "add", "no host"))


def test_key_may_stand_in_a_file(run, admin_key, tmp_path):
    file = tmp_path / "key"
    file.write_text(f"{admin_key}\n")
    done(run("domains", "list", HOPGATE_KEY="", HOPGATE_KEY_FILE=str(file)))
    assert "cannot read" in failed(run("domains", "list", HOPGATE_KEY="", HOPGATE_KEY_FILE="/never"))
    assert "set HOPGATE_KEY" in failed(run("domains", "list", HOPGATE_KEY=""))


@pytest.mark.parametrize(
    "url", ["go.example", "https://u:geheim@go.example", "https://go.example?x", "ftp://x"]
)
def test_url_that_is_none_is_refused(run, url):
    line = failed(run("links", "list", HOPGATE_URL=url))
    assert "HOPGATE_URL" in line
    assert "geheim" not in line


@pytest.mark.timeout(120)
def test_gateway_that_is_away_is_one_line(run):
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    line = failed(run("links", "get", "x", HOPGATE_URL=url))
    assert "does not answer" in line
    assert line.endswith(f"(gateway: {url})")


def test_every_other_command_is_refused_in_one_line(run, tmp_path):
    file = tmp_path / "x"
    file.write_text("x")
    seen = set()
    for names, command in commands(typer.main.get_command(program.app)):
        name = " ".join(names)
        seen.add(name)
        if name not in COMMANDS and name not in ANYWHERE:
            line = failed(run(*names, *required(command, str(file))))
            assert line.startswith(f"hopgate {name} works on its own machine alone: unset HOPGATE_URL"), line
    assert set(COMMANDS) | ANYWHERE <= seen
    done(run("keys", "generate"))
    done(run("top", "--once"))


def test_manual_lists_the_commands():
    text = (Path(__file__).parents[2] / "docs" / "client.md").read_text().partition("| command |")[2]
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`([a-z]+(?: [a-z]+)?)`", row)} == set(COMMANDS)


def test_missing_client_is_named_with_its_installation(run, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] in {"hopgate_client", "httpx"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "httpx", None)
    line = failed(run("links", "list"))
    assert "make remote" in line
    assert "pip install 'hopgate[remote]'" in line


# --- files: with a server that answers as a gateway does -----------------------------------

LINES = b'{"slug": "a"}\n{"slug": "b"}\n'
COUNTS = {"read": 2, "imported": 1, "updated": 0, "same": 0, "refused": 1}
REASON = {"field": "slug", "code": "c", "message": "is\x1b[31m taken", "rows": 1, "examples": ["line 4: x"]}


@pytest.fixture(scope="module")
def server(embedded):
    with ScriptedServer(embedded.port) as scripted:
        yield scripted


def summary(*, succeeded):
    document = {"format": "csv", "dry_run": False, **COUNTS, "reasons": [REASON], "notes": []}
    line = {"summary": {**document, "ignored_columns": [], "succeeded": succeeded}}
    return Reply(body=json.dumps(line).encode() + b"\n")


def test_export(run, server, tmp_path):
    file = tmp_path / "links.jsonl"
    server.plan(Reply(body=LINES), Reply(body=LINES), Reply(body=LINES + b'{"error":"the gateway stops"}\n'))
    outcome = run("links", "export", HOPGATE_URL=server.url)
    assert done(outcome).encode() == LINES
    assert outcome.stderr.splitlines() == [f"hopgate: using {server.url}", "hopgate: 2 links exported"]
    done(run("links", "export", "--output", str(file), HOPGATE_URL=server.url))
    assert file.read_bytes() == LINES
    file.write_text("before")
    assert "not whole" in failed(run("links", "export", "--output", str(file), HOPGATE_URL=server.url))
    assert file.read_text() == "before"


def test_import(run, server, tmp_path):
    file = tmp_path / "links.csv"
    file.write_text("long_url\nhttps://example.com/\n")
    server.plan(summary(succeeded=False), summary(succeeded=True), Reply(body=b""))

    outcome = run("links", "import", str(file), "--ignore", "x", HOPGATE_URL=server.url)

    assert outcome.returncode == 1
    assert "1 link imported, 1 row refused (format csv)" in outcome.stderr
    assert "\x1b" not in outcome.stderr
    assert server.received[0].body == file.read_bytes()
    outcome = run("links", "import", str(file), "--allow-refused", "--json", HOPGATE_URL=server.url)
    assert json.loads(done(outcome))["imported"] == 1
    assert "run it again" in failed(run("links", "import", str(file), HOPGATE_URL=server.url))
    for option in ("--output", "--refused"):
        line = failed(
            run("links", "import", str(file), option, str(tmp_path / "out"), HOPGATE_URL=server.url)
        )
        assert f"{option} works on the gateway's own machine alone" in line
