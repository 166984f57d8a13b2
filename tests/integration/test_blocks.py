"""Blocked hosts and slugs, on an embedded gateway with and without the front."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.front_gateway import ALONE, FRONT, get, is_of_the_front, settled, total
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_key

LINKS, BLOCKS = "/api/v1/links", "/api/v1/blocks"


class Blocking(Gateway):
    """A gateway, its settings and a client with every scope."""

    api: httpx.Client
    settings: dict[str, str]

    def link(self, long_url: str, **fields: object) -> str:
        slug = f"b{secrets.token_hex(6)}"
        answer = self.api.post(LINKS, json={"long_url": long_url, "slug": slug, **fields})
        assert answer.status_code == 201, answer.text
        return f"/{slug}"

    def block(self, **body: list[str]) -> dict[str, int]:
        answer = self.api.post(BLOCKS, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def visit(self, path: str, status: int, method: str = "GET") -> httpx.Response:
        """Visit *path*, once the process that answers knows what was committed."""
        answers = []

        def has_status() -> bool:
            answers.append(self.api.request(method, path))
            return answers[-1].status_code == status

        eventually(has_status, 30, f"{method} {path} answers {status}")
        return answers[-1]


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Blocking]:
    directory = tmp_path_factory.mktemp("blocks")
    settings = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": "http://hop.example",
        **request.param,
        **UNLIMITED,
    }
    key = make_key(settings)
    with (
        Blocking(settings, directory) as gateway,
        httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        gateway.api, gateway.settings = client, settings
        yield gateway


def fresh_host() -> str:
    return f"h{secrets.token_hex(6)}.example"


def test_blocked_host_answers_451_and_comes_back(gateway):
    host = fresh_host()
    path = gateway.link(f"https://{host}/x")
    assert gateway.visit(path, 302).headers["location"] == f"https://{host}/x"

    assert gateway.block(hosts=[host]) == {"added": 1, "present": 0}

    blocked = gateway.visit(path, 451)
    assert blocked.headers["content-type"] == "application/problem+json"
    assert blocked.headers["link"] == '<http://hop.example/>; rel="blocked-by"'
    assert blocked.headers["cache-control"] == "no-store"
    assert "location" not in blocked.headers
    assert blocked.json()["code"] == "blocked"
    assert gateway.visit(path, 451, "HEAD").content == b""
    assert gateway.api.delete(f"{BLOCKS}/hosts/{host}").status_code == 204
    assert gateway.visit(path, 302).headers["location"] == f"https://{host}/x"


def test_gateway_that_blocks_knows_at_once(gateway):
    """The answer to the API call comes after the change of this process."""
    host = fresh_host()
    path = gateway.link(f"https://{host}/")
    assert gateway.api.get(path).status_code == 302
    for _ in range(5):
        gateway.block(hosts=[host])
        assert gateway.api.get(path).status_code == 451
        gateway.api.delete(f"{BLOCKS}/hosts/{host}")
        assert gateway.api.get(path).status_code == 302


def test_block_of_the_command_line_reaches_the_gateway(gateway):
    host = fresh_host()
    path = gateway.link(f"https://{host}/")
    gateway.visit(path, 302)

    done = hopgate(gateway.settings, "blocks", "add", host.upper() + ".")

    assert done.stdout == "1 block added, 0 there already\n", done.stderr
    gateway.visit(path, 451)
    done = hopgate(gateway.settings, "blocks", "remove", host)
    assert done.returncode == 0
    gateway.visit(path, 302)


def test_blocked_slug_answers_451(gateway):
    path = gateway.link("https://fine.example/")
    other = gateway.link("https://fine.example/")
    gateway.visit(path, 302)

    gateway.block(slugs=[path[1:]])

    gateway.visit(path, 451)
    assert gateway.api.get(other).status_code == 302
    assert gateway.api.delete(f"{BLOCKS}/slugs{path}").status_code == 204
    gateway.visit(path, 302)


def test_block_hides_nothing_that_is_not_there(gateway):
    gone = gateway.link("https://fine.example/", enabled=False)
    gateway.block(slugs=["no-such-link", gone[1:]])

    assert gateway.api.get("/no-such-link").status_code == 404
    assert gateway.api.get(gone).status_code == 410


def test_451_is_no_click_and_takes_no_visit(gateway):
    host = fresh_host()
    path = gateway.link(f"https://{host}/", max_visits=2)
    plain = gateway.link(f"https://{host}/")
    gateway.visit(plain, 302)
    gateway.block(hosts=[host])
    gateway.visit(plain, 451)
    for _ in range(20):
        assert gateway.api.get(path).status_code == 451
        assert gateway.api.get(plain).status_code == 451

    gateway.api.delete(f"{BLOCKS}/hosts/{host}")

    gateway.visit(plain, 302)
    assert [gateway.api.get(path).status_code for _ in range(3)] == [302, 302, 410]
    eventually(lambda: gateway.api.get(LINKS + path).json()["visits"] == 2, 15, "clicks are stored")
    eventually(lambda: gateway.api.get(LINKS + plain).json()["visits"] == 2, 15, "clicks are stored")


@pytest.mark.parametrize("typed", ["MÜLLER-{}.example", "müller-{}.EXAMPLE.", "ｍüller-{}.example"])
def test_spellings_of_a_host_are_one(gateway, typed):
    mark = secrets.token_hex(4)
    path = gateway.link(f"https://www.Müller-{mark}.example:8443/x?y#z")

    gateway.block(hosts=[typed.format(mark)])

    gateway.visit(path, 451)


def test_punycode_of_a_host_is_the_host(gateway):
    path = gateway.link(f"https://bücher-{secrets.token_hex(4)}.example/")
    host = gateway.api.get(LINKS + path).json()["long_url"].split("/")[2]
    assert host.startswith("xn--")

    gateway.block(hosts=[host.upper()])

    gateway.visit(path, 451)


def test_links_to_blocked_hosts_are_refused(gateway, tmp_path):
    host = fresh_host()
    path = gateway.link("https://fine.example/")
    gateway.block(hosts=[host], slugs=["blocked-slug"])
    body = {"long_url": f"https://sub.{host}/x"}

    created = gateway.api.post(LINKS, json=body)
    changed = gateway.api.patch(LINKS + path, json=body)
    slug = gateway.api.post(LINKS, json={"long_url": "https://fine.example/", "slug": "blocked-slug"})
    by_command = hopgate(gateway.settings, "links", "create", body["long_url"])
    edited = hopgate(gateway.settings, "links", "edit", path[1:], "--long-url", body["long_url"])
    file = tmp_path / "urls.txt"
    file.write_text(f"https://fine.example/a\nhttps://{host}/b\n")
    imported = hopgate(gateway.settings, "links", "import", str(file), "--json")
    rehearsed = hopgate(gateway.settings, "links", "import", str(file), "--json", "--dry-run")

    assert [created.status_code, changed.status_code, slug.status_code] == [422, 422, 422]
    assert created.json()["errors"][0]["code"] == "url_blocked_host"
    assert changed.json()["errors"][0]["code"] == "url_blocked_host"
    assert slug.json()["errors"][0]["code"] == "slug_blocked"
    assert by_command.returncode == 1
    assert "leads to a host that the operator blocks" in by_command.stderr
    assert edited.returncode == 1
    for done in (imported, rehearsed):
        report = json.loads(done.stdout)
        assert (done.returncode, report["refused"]) == (1, 1)
        [reason] = report["reasons"]
        assert reason["message"] == "leads to a host that the operator blocks"
        assert "2" in reason["examples"][0]


def test_link_of_a_blocked_host_can_be_edited_otherwise(gateway):
    """A field that stays as it is obeys the rules."""
    host = fresh_host()
    path = gateway.link(f"https://{host}/")
    gateway.block(hosts=[host])

    answer = gateway.api.patch(LINKS + path, json={"title": "kept"})

    assert answer.status_code == 200
    gateway.visit(path, 451)
    assert gateway.api.patch(LINKS + path, json={"long_url": "https://fine.example/"}).status_code == 200
    gateway.visit(path, 302)


def test_api_names_every_wrong_entry(gateway):
    answer = gateway.api.post(
        BLOCKS, json={"hosts": ["fine.example", "*.a.example", "https://a.example/"], "slugs": ["a b"]}
    )

    assert answer.status_code == 422
    assert [error["code"] for error in answer.json()["errors"]] == [
        "host_wildcard",
        "host_not_alone",
        "slug_invalid",
    ]
    assert gateway.api.post(BLOCKS, json={}).status_code == 422
    assert gateway.api.post(BLOCKS, json={"hosts": ["a.example"] * 1001}).status_code == 422
    assert gateway.api.delete(f"{BLOCKS}/hosts/{fresh_host()}").status_code == 404
    assert gateway.api.delete(f"{BLOCKS}/hosts/a%20b").status_code == 422


def test_api_lists_blocks_latest_first(gateway):
    hosts = [fresh_host() for _ in range(5)]
    for host in hosts:
        gateway.block(hosts=[host])

    found: list[str] = []
    cursor = None
    while len(found) < 5:
        query = {"limit": "2", **({"cursor": cursor} if cursor else {})}
        page = gateway.api.get(BLOCKS, params=query).json()
        found += [one["value"] for one in page["blocks"]]
        cursor = page["next_cursor"]

    assert found[:5] == hosts[::-1]
    assert gateway.api.get(BLOCKS, params={"cursor": "x"}).status_code == 422


def test_address_is_blocked_in_any_notation(gateway):
    path = gateway.link("http://0x5db8d822/")
    six = gateway.link("http://[2001:DB8::0:7]/")

    gateway.block(hosts=["93.184.216.34", "2001:db8::7"])

    gateway.visit(path, 451)
    gateway.visit(six, 451)
    assert gateway.api.delete(f"{BLOCKS}/hosts/[2001:db8::7]").status_code == 204
    gateway.visit(six, 302)


def test_keys_without_admin_see_no_blocks(gateway):
    key = make_key(gateway.settings, "links:read", "links:write", "cache:write")
    headers = {"Authorization": f"Bearer {key}"}

    assert gateway.api.get(BLOCKS, headers=headers).status_code == 403
    assert gateway.api.post(BLOCKS, json={"hosts": ["a.example"]}, headers=headers).status_code == 403
    assert gateway.api.delete(f"{BLOCKS}/hosts/a.example", headers=headers).status_code == 403


def test_list_is_imported(gateway, tmp_path):
    one, two, three = fresh_host(), fresh_host(), fresh_host()
    file = tmp_path / "hosts.txt"
    file.write_text(
        f"# a comment\n127.0.0.1 localhost\n0.0.0.0 {one} # why\n\n{two.upper()}\n"
        f"||ads.example^\n0.0.0.0 {three} www.{one}\n1.2.3.4 real.example\n"
    )

    done = hopgate(gateway.settings, "blocks", "import", str(file))
    again = hopgate(gateway.settings, "blocks", "import", str(file), "--json", "--allow-refused")
    listed = json.loads(hopgate(gateway.settings, "blocks", "list", "--json").stdout)

    assert done.returncode == 1
    assert "4 blocks added, 0 there already, 2 lines refused" in done.stderr
    assert "line 6: '||ads.example^' is more than a host: name the host alone" in done.stderr
    assert "line 8: maps a name to 1.2.3.4" in done.stderr
    assert again.returncode == 0
    report = json.loads(again.stdout)
    assert (report["lines"], report["added"], report["present"]) == (8, 0, 4)
    assert {one, two, three} <= {block["value"] for block in listed}


def test_doctor_and_metrics_show_the_count(gateway):
    gateway.block(hosts=[fresh_host()])

    done = hopgate(gateway.settings, "doctor")
    listed = json.loads(hopgate(gateway.settings, "blocks", "list", "--json").stdout)

    hosts = sum(block["kind"] == "host" for block in listed)
    assert f"{hosts:,} hosts and " in done.stdout
    eventually(lambda: total(gateway, "hopgate_blocks", kind="host") == hosts, 30, "the metric follows")


def test_451_is_counted_by_its_status(gateway):
    path = gateway.link("https://fine.example/")
    gateway.block(slugs=[path[1:]])
    before = settled(lambda: total(gateway, "hopgate_redirects_total", status="451"))

    for _ in range(10):
        assert gateway.api.get(path).status_code == 451

    eventually(
        lambda: total(gateway, "hopgate_redirects_total", status="451") == before + 10, 5, "451 are counted"
    )


def test_batches_obey_blocks(gateway):
    host, slug = fresh_host(), f"b{secrets.token_hex(6)}"
    path = gateway.link("https://fine.example/")
    target = f"https://fine.example/{slug}"
    assert gateway.api.post(LINKS, json={"long_url": target, "slug": slug}).status_code == 201
    gateway.block(hosts=[host], slugs=[slug])
    bad = {"long_url": f"https://{host}/"}

    def codes(method: str, *items, **options) -> list[str]:
        answer = gateway.api.request(method, f"{LINKS}/bulk", json={"links": items, **options})
        assert answer.status_code == 200, answer.text
        return [one["error"]["errors"][0]["code"] for one in answer.json()["results"]]

    assert codes("POST", bad, {"long_url": target, "slug": slug}) == ["url_blocked_host", "slug_blocked"]
    assert codes("POST", {**bad, "external_id": slug}, upsert="external_id") == ["url_blocked_host"]
    assert codes("PATCH", {"slug": path[1:], **bad}) == ["url_blocked_host"]
    assert codes("POST", {**bad, "reuse": True}) == ["url_blocked_host"]
    # An equal link is there, and answers 451.
    for answer in [gateway.api.post(LINKS, json={"long_url": target, "reuse": True}) for _ in range(2)]:
        assert answer.json()["slug"] != slug
        gateway.visit(f"/{answer.json()['slug']}", 302)


def test_451_has_one_place(gateway):
    """The front answers by itself where there is one."""
    path = gateway.link("https://fine.example/")
    gateway.block(slugs=[path[1:]])

    eventually(lambda: get(gateway, path).status == 451, 30, "the block holds")
    has_front = gateway.settings["HOPGATE_FRONT"] == "on"
    assert is_of_the_front(get(gateway, path)) == has_front
    answer = get(gateway, path)

    assert answer.status == 451
    assert answer.header("link") == '<http://hop.example/>; rel="blocked-by"'


def test_blocks_outlast_a_restart(gateway):
    host = fresh_host()
    path = gateway.link(f"https://{host}/")
    gateway.block(hosts=[host])

    gateway.stop()
    gateway.start()

    assert httpx.get(gateway.url + path).status_code == 451
