"""The history of links and the undo of changes, on an embedded gateway with and without the front."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.api_calls import LINKS, create, problem
from tests.integration.front_gateway import ALONE, FRONT, OWN_NAME
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_key

TARGET = "https://example.com/"


class Serving(Gateway):
    """A gateway, its settings, and clients by the scopes of their keys."""

    api: httpx.Client
    writer: httpx.Client
    settings: dict[str, str]

    def visit(self, slug: str, **headers: str) -> tuple[int, str | None]:
        answer = self.api.get(f"/{slug}", headers=headers)
        return answer.status_code, answer.headers.get("location")

    def becomes(self, slug: str, *wanted: object) -> None:
        eventually(lambda: self.visit(slug) == wanted, 30, f"/{slug} answers {wanted}")

    def history(self, slug: str, **query: str | int) -> dict:
        answer = self.api.get(f"{LINKS}/{slug}/history", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


def key_id(client: httpx.Client) -> str:
    return client.get("/api/v1/me").json()["key_id"]


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Serving]:
    directory = tmp_path_factory.mktemp("history")
    settings = {"HOPGATE_DATA_DIR": str(directory / "data"), **request.param, **UNLIMITED}
    key = make_key(settings)
    with (
        Serving(settings, directory) as gateway,
        httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        made = client.post("/api/v1/keys", json={"name": "writer", "scopes": ["links:write"]})
        assert made.status_code == 201, made.text
        writing = {"Authorization": f"Bearer {made.json()['key']}"}
        with httpx.Client(base_url=gateway.url, headers=writing) as writer:
            gateway.api, gateway.writer, gateway.settings = client, writer, settings
            yield gateway


def undo(client: httpx.Client, slug: str, **headers: str) -> httpx.Response:
    return client.post(f"{LINKS}/{slug}/undo", headers={"Content-Length": "0", **headers})


def test_edit_is_in_the_history_and_undone(gateway):
    link = create(gateway.api, long_url=f"{TARGET}1", title="first")
    slug, own = link["slug"], key_id(gateway.api)
    gateway.becomes(slug, 302, f"{TARGET}1")
    edited = gateway.api.patch(f"{LINKS}/{slug}", json={"long_url": f"{TARGET}2", "tags": ["a"]}).json()
    gateway.becomes(slug, 302, f"{TARGET}2")

    answer = undo(gateway.api, slug)

    assert answer.status_code == 200
    assert answer.headers["etag"] == '"3"'
    document = answer.json()
    assert {**document, "updated_at": None} == {**link, "version": 3, "updated_at": None}
    gateway.becomes(slug, 302, f"{TARGET}1")
    found = gateway.history(slug)
    before, after = {"long_url": f"{TARGET}1", "tags": []}, {"long_url": f"{TARGET}2", "tags": ["a"]}
    assert found == {
        "domain": link["domain"],
        "slug": slug,
        "created_at": link["created_at"],
        "created_by": own,
        "removed": False,
        "changes": [
            {
                "version": 3,
                "at": document["updated_at"],
                "by": own,
                "action": "undo",
                "before": after,
                "after": before,
            },
            {
                "version": 2,
                "at": edited["updated_at"],
                "by": own,
                "action": "edit",
                "before": before,
                "after": after,
            },
        ],
        "next_cursor": None,
    }


def test_removed_link_is_served_again(gateway):
    """The restored link replaces what every cache holds of its removal."""
    slug = create(gateway.api, long_url=f"{TARGET}1")["slug"]
    gateway.becomes(slug, 302, f"{TARGET}1")
    assert gateway.api.delete(f"{LINKS}/{slug}").status_code == 204
    gateway.becomes(slug, 410, None)
    assert gateway.history(slug)["removed"] is True

    back = undo(gateway.api, slug)

    assert (back.status_code, back.json()["version"]) == (200, 3)
    gateway.becomes(slug, 302, f"{TARGET}1")
    if gateway.settings["HOPGATE_FRONT"] == "on":
        eventually(
            lambda: gateway.api.get(f"/{slug}").headers["server"] == OWN_NAME, 5, "the front answers itself"
        )
    assert slug in [one["slug"] for one in gateway.api.get(LINKS).json()["links"]]
    again = undo(gateway.api, slug)
    assert (again.status_code, again.headers["etag"], again.content) == (204, '"4"', b"")
    gateway.becomes(slug, 410, None)
    actions = [(one["action"], one["before"], one["after"]) for one in gateway.history(slug)["changes"]]
    removed, kept = {"removed": True}, {"removed": False}
    assert actions == [("undo", kept, removed), ("undo", removed, kept), ("remove", kept, removed)]


def test_every_way_to_change_a_link_names_its_key(gateway):
    slug, own = create(gateway.api, tags=["t1"])["slug"], key_id(gateway.writer)
    gateway.writer.patch(f"{LINKS}/{slug}", json={"title": "one"})
    gateway.writer.patch(f"{LINKS}/bulk", json={"links": [{"slug": slug, "title": "bulk"}]})
    lines = gateway.writer.patch(
        f"{LINKS}/bulk",
        content=json.dumps({"slug": slug, "title": "lines"}) + "\n",
        headers={"Content-Type": "application/x-ndjson"},
    )
    assert json.loads(lines.text)["status"] == 204
    gateway.writer.patch("/api/v1/tags", params={"tag": "t1"}, json={"name": f"t-{slug}"})
    done = hopgate(gateway.settings, "links", "edit", slug, "--title", "cli")
    assert done.returncode == 0, done.stderr
    gateway.writer.request("DELETE", f"{LINKS}/bulk", json={"links": [{"slug": slug}]})

    changes = gateway.history(slug)["changes"]

    assert [(one["version"], one["by"], one["action"]) for one in changes] == [
        (7, own, "remove"),
        (6, "cli", "edit"),
        (5, own, "edit"),
        (4, own, "edit"),
        (3, own, "edit"),
        (2, own, "edit"),
    ]
    assert [one["after"].get("title") for one in changes[:0:-1]] == ["one", "bulk", "lines", None, "cli"]


def test_links_remember_how_they_were_made(gateway, tmp_path):
    own = key_id(gateway.writer)
    made = [
        gateway.writer.post(LINKS, json={"long_url": TARGET}).json()["slug"],
        gateway.writer.post(f"{LINKS}/bulk", json={"links": [{"long_url": TARGET}]}).json()["results"][0][
            "link"
        ]["slug"],
    ]
    by_cli = json.loads(hopgate(gateway.settings, "links", "create", TARGET, "--json").stdout)["slug"]
    file, name = tmp_path / "links.csv", f"s{secrets.token_hex(4)}"
    file.write_text(f"slug,long_url,title\n{name},{TARGET},old\n")
    assert hopgate(gateway.settings, "links", "import", str(file)).returncode == 0
    file.write_text(f"slug,long_url,title\n{name},{TARGET},new\n")
    assert hopgate(gateway.settings, "links", "import", str(file), "--update").returncode == 0

    assert [gateway.history(slug)["created_by"] for slug in made] == [own, own]
    assert gateway.history(by_cli)["created_by"] == "cli"
    imported = gateway.history(name)
    assert imported["created_by"] == "cli"
    assert [(one["by"], one["before"], one["after"]) for one in imported["changes"]] == [
        ("cli", {"title": "old"}, {"title": "new"})
    ]


def test_visits_and_invalidations_leave_no_trace(gateway):
    slug = create(gateway.api, max_visits=100)["slug"]
    for _ in range(5):
        gateway.visit(slug)
    gateway.api.post("/api/v1/cache/invalidate", json={"slugs": [slug]})

    assert gateway.history(slug)["changes"] == []
    problem(undo(gateway.api, slug), 409, "nothing_to_undo")


def test_history_is_read_in_pages(gateway):
    slug, other = create(gateway.api)["slug"], create(gateway.api)["slug"]
    for number in range(5):
        gateway.api.patch(f"{LINKS}/{slug}", json={"title": str(number)})
        gateway.api.patch(f"{LINKS}/{other}", json={"title": str(number)})
    found, cursor = [], None
    while True:
        page = gateway.history(slug, limit=2, **({"cursor": cursor} if cursor else {}))
        found += page["changes"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        last = cursor

    assert found == gateway.history(slug)["changes"]
    assert [one["after"]["title"] for one in found] == list("43210")
    for of, bad in ((other, last), (slug, "q" + "A" * 20), (slug, "x")):
        answer = gateway.api.get(f"{LINKS}/{of}/history", params={"cursor": bad})
        problem(answer, 422, "invalid")
    problem(gateway.api.get(f"{LINKS}/{slug}/history", params={"limit": 0}), 422, "invalid")


def test_absent_links_have_no_history(gateway):
    for slug in ("absent", "a.b", "~1~abc"):
        problem(gateway.api.get(f"{LINKS}/{slug}/history"), 404, "not_found")
        problem(undo(gateway.api, slug), 404, "not_found")


def test_links_of_other_domains_are_addressed(gateway):
    host = f"h{secrets.token_hex(4)}.example"
    gateway.api.post("/api/v1/domains", json={"host": host})
    slug = create(gateway.api, long_url=f"{TARGET}here")["slug"]
    create(gateway.api, long_url=f"{TARGET}there", slug=slug, domain=host)
    path, there = f"{LINKS}/{slug}", {"domain": host}
    gateway.api.patch(path, params=there, json={"title": "there"})

    assert gateway.history(slug)["changes"] == []
    found = gateway.history(slug, domain=host)
    assert (found["domain"], found["slug"], len(found["changes"])) == (host, slug, 1)
    problem(undo(gateway.api, slug), 409, "nothing_to_undo")
    done = gateway.api.post(f"{path}/undo", params=there)
    assert (done.status_code, done.json()["title"], done.json()["domain"]) == (200, "", host)
    gateway.api.delete(path, params=there)
    shown = hopgate(gateway.settings, "links", "history", slug, "--domain", host)
    assert "remove by" in shown.stdout
    assert hopgate(gateway.settings, "links", "undo", slug, "--domain", host).returncode == 0
    eventually(lambda: gateway.visit(slug, Host=host) == (302, f"{TARGET}there"), 30, "the link is back")


def test_undo_obeys_if_match(gateway):
    slug = create(gateway.api)["slug"]
    gateway.api.patch(f"{LINKS}/{slug}", json={"title": "new"})

    stale = problem(undo(gateway.api, slug, **{"If-Match": '"1"'}), 412, "version_mismatch")
    listed = problem(undo(gateway.api, slug, **{"If-Match": '"1", "9"'}), 412, "version_mismatch")
    held = problem(undo(gateway.api, slug, **{"If-None-Match": '"2"'}), 412, "version_mismatch")
    blind = problem(undo(gateway.writer, slug, **{"If-Match": '"1"'}), 412, "version_mismatch")
    done = undo(gateway.api, slug, **{"If-Match": '"1", "2"'})
    repeated = undo(gateway.api, slug, **{"If-Match": '"2"'})

    assert stale["link"] == listed["link"] == held["link"]
    assert stale["link"]["version"] == 2
    assert "link" not in blind
    assert (done.status_code, done.json()["version"]) == (200, 3)
    problem(repeated, 412, "version_mismatch")
    gateway.api.delete(f"{LINKS}/{slug}")
    assert undo(gateway.api, slug, **{"If-Match": '"3", "4"'}).json()["version"] == 5


def test_key_that_may_not_read_learns_no_more_than_by_a_change(gateway):
    slug, bad = create(gateway.api, long_url=f"{TARGET}secret")["slug"], f"e{secrets.token_hex(4)}.example"
    named = create(gateway.api, external_id=f"id-{slug}")["slug"]
    gateway.api.patch(f"{LINKS}/{slug}", json={"title": "new"})

    problem(gateway.writer.get(f"{LINKS}/{slug}/history"), 403, "forbidden")
    done = undo(gateway.writer, slug)
    assert (done.status_code, done.headers["etag"], done.content) == (204, '"3"', b"")
    gateway.api.patch(f"{LINKS}/{slug}", json={"long_url": f"https://{bad}/secret"})
    gateway.api.patch(f"{LINKS}/{slug}", json={"long_url": TARGET})
    gateway.api.post("/api/v1/blocks", json={"hosts": [bad]})
    refused = problem(undo(gateway.writer, slug), 409, "undo_refused")
    assert "errors" not in refused
    shown = problem(undo(gateway.api, slug), 422, "invalid")
    assert shown["errors"][0]["code"] == "url_blocked_host"
    gateway.api.delete(f"{LINKS}/{named}")
    holder = create(gateway.api, external_id=f"id-{slug}")
    blind = problem(undo(gateway.writer, named), 409, "undo_refused")
    assert f"id-{slug}" not in json.dumps(blind)
    taken = problem(undo(gateway.api, named), 409, "external_id_taken")
    assert taken["link"]["slug"] == holder["slug"]
    reader = gateway.api.post("/api/v1/keys", json={"name": "reader", "scopes": ["links:read"]}).json()
    answer = httpx.post(
        f"{gateway.url}{LINKS}/{slug}/undo", headers={"Authorization": f"Bearer {reader['key']}"}
    )
    problem(answer, 403, "forbidden")


def test_command_line_shows_and_undoes(gateway):
    slug = create(gateway.api)["slug"]
    gateway.api.patch(f"{LINKS}/{slug}", json={"title": "new \x1b[31m".replace("\x1b", "")})

    listed = hopgate(gateway.settings, "links", "history", slug)
    as_json = hopgate(gateway.settings, "links", "history", slug, "--json", "--limit", "1")
    late = hopgate(gateway.settings, "links", "undo", slug, "--if-version", "1")
    undone = hopgate(gateway.settings, "links", "undo", slug, "--json")

    assert f"version 2  edit by {key_id(gateway.api)}" in listed.stdout
    assert 'title: "" -> "new [31m"' in listed.stdout
    assert "version 1  created by" in listed.stdout
    assert json.loads(as_json.stdout) == gateway.history(slug) | {
        "changes": gateway.history(slug)["changes"][1:]
    }
    assert "is at version 2" in late.stderr
    assert json.loads(undone.stdout)["version"] == 3
    assert gateway.history(slug)["changes"][0]["by"] == "cli"
    hopgate(gateway.settings, "links", "delete", slug)
    assert hopgate(gateway.settings, "links", "undo", slug).returncode == 0
    assert "is deleted again" in hopgate(gateway.settings, "links", "undo", slug).stdout
    assert (
        "no change of the last 30 days"
        in hopgate(gateway.settings, "links", "undo", create(gateway.api)["slug"]).stderr
    )
    assert hopgate(gateway.settings, "links", "undo", "absent").returncode == 1
    assert "there is no link absent" in hopgate(gateway.settings, "links", "history", "absent").stderr


def test_undo_has_its_time(gateway):
    slug = create(gateway.api)["slug"]
    gateway.api.patch(f"{LINKS}/{slug}", json={"title": "new"})

    done = hopgate({**gateway.settings, "HOPGATE_UNDO_DAYS": "0"}, "links", "undo", slug)

    assert done.returncode == 1
    assert "nothing to undo" in done.stderr
