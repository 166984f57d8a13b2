"""Statistics of a domain and of a tag over HTTP, and by the command line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.api_calls import problem
from tests.integration.domain_gateway import BASE, Serving, serving
from tests.integration.test_statistics import FIREFOX, by, kinds
from tests.servers.hopgate import eventually, hopgate

STATS = "/api/v1/stats"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    yield from serving({"HOPGATE_FRONT": "on"}, tmp_path_factory.mktemp("totals"))


def visit(gateway: Serving, link: dict, times: int) -> None:
    for _ in range(times):
        headers = {"Host": link["domain"], "User-Agent": FIREFOX}
        assert gateway.api.get(f"/{link['slug']}", headers=headers).status_code == 302


def test_visits_of_a_domain_and_of_a_tag(gateway):
    host = gateway.domain()
    visit(gateway, gateway.link(tags=["a", "b"]), 1)
    visit(gateway, gateway.link(host, tags=["a"]), 2)
    visit(gateway, gateway.link(host), 4)

    def shown(**query: str) -> dict:
        answer = gateway.api.get(STATS, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    eventually(lambda: kinds(shown()["visits"]) == 7, 10, "visits are described")

    asked = (
        {"domain": host},
        {"domain": BASE},
        {"domain": host.upper()},
        {"tag": "a"},
        {"tag": "b"},
        {"tag": "none"},
    )
    found = [shown(**query)["visits"] for query in asked]
    assert [kinds(one) for one in found] == [6, 1, 6, 3, 1, 0]
    assert [one["visitors"] for one in found] == [1, 1, 1, 1, 1, 0]
    assert by(found[0], "browser") == {"Firefox": 6}
    whole = shown(domain=host, interval="day", time_zone="Europe/Vienna", compare="true")
    assert sum(kinds(one) for one in whole["series"]) == 6
    assert kinds(whole["before"]) == 0
    assert "browser,,Firefox,3\n" in gateway.api.get(STATS, params={"tag": "a", "format": "csv"}).text
    printed = hopgate(gateway.settings, "stats", "--domain", host).stdout
    assert "6 people, 0 bots" in printed
    assert "3 people, 0 bots" in hopgate(gateway.settings, "stats", "--tag", "a").stdout


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"domain": "nowhere.example"}, "domain_unknown"),
        ({"domain": BASE, "tag": "a"}, "tag_with_domain"),
        ({"domain": "a b"}, "url_forbidden_character"),
        ({"tag": ""}, "tag_invalid"),
        ({"tag": "x" * 65}, "tag_invalid"),
    ],
)
def test_totals_that_are_none(gateway, query, code):
    found = problem(gateway.api.get(STATS, params=query), 422, "invalid")

    assert [one["code"] for one in found["errors"]] == [code]
    options = [text for name, value in query.items() for text in (f"--{name}", value)]
    if code in {"domain_unknown", "tag_with_domain"}:
        assert hopgate(gateway.settings, "stats", *options).returncode == 1
