"""Statistics of what people ask for and do not find: requests that end with 404 or 410, by both planes."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.domain_gateway import BASE, PAGES, Serving, serving
from tests.integration.test_statistics import FIREFOX, by
from tests.servers.hopgate import eventually, hopgate

STATS = "/api/v1/stats"
GUARDED = "-1-slae"


@pytest.fixture(scope="module", params=["on", "off"])
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    settings = {"HOPGATE_FRONT": request.param, "HOPGATE_RESPECT_DNT": "on"}
    yield from serving(settings, tmp_path_factory.mktemp("not-found"))


def ask(
    gateway: Serving,
    host: str,
    path: str,
    status: int,
    times: int = 1,
    *,
    method: str = "GET",
    agent: str = FIREFOX,
    dnt: str = "0",
) -> None:
    sent = {"Host": host, "User-Agent": agent, "DNT": dnt}
    for _ in range(times):
        assert gateway.api.request(method, path, headers=sent).status_code == status


def shown(gateway: Serving, **query: str) -> dict[str, Any]:
    answer = gateway.api.get(STATS, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_what_is_asked_for_and_not_found_is_counted_and_named(gateway):
    """Each GET of the redirect path that ends with 404 or 410, also if a page stands for it; nothing else."""
    host = gateway.domain(**PAGES)
    gateway.becomes(host, "/", (302, PAGES["root_url"]))
    over = gateway.link(enabled=False)["slug"]
    once = gateway.link(max_visits=1)["slug"]
    ask(gateway, BASE, "/slae", 404, 3)
    ask(gateway, BASE, f"/{GUARDED}", 404, 2)
    ask(gateway, BASE, "/slae", 404, agent="curl/8.5.0")
    ask(gateway, BASE, "/asked-by-a-bot", 404, agent="Googlebot/2.1")
    ask(gateway, BASE, "/no-name-please", 404, dnt="1")
    ask(gateway, BASE, f"/{'s' * 128}", 404)
    ask(gateway, BASE, "/no.slug", 404)
    ask(gateway, BASE, f"/{over}", 410, 2)
    ask(gateway, BASE, f"/{once}", 302)
    ask(gateway, BASE, f"/{once}", 410)
    ask(gateway, host, "/slae", 302, 4)
    # No visits: a program that checks a link, the API, and what is no link at all.
    ask(gateway, BASE, "/slae", 404, method="HEAD")
    ask(gateway, BASE, f"/{over}", 410, method="HEAD")
    ask(gateway, BASE, "/api/v1/links/slae", 404)
    ask(gateway, BASE, "/wp-admin/setup.php", 404)

    eventually(lambda: shown(gateway)["missed"] >= 14, 10, "they are counted")
    eventually(lambda: shown(gateway)["gone"] >= 3, 10, "they are counted")
    found = shown(gateway, interval="hour")
    assert (found["missed"], found["gone"]) == (14, 3)
    assert by(found, "missing") == {"slae": 7, GUARDED: 2, "": 5}
    assert [one["value"] for one in found["missing"]] == ["slae", GUARDED, ""]
    assert [sum(one[name] for one in found["series"]) for name in ("missed", "gone", "people")] == [14, 3, 1]
    assert found["visits"]["people"] == 1
    own, other = (shown(gateway, domain=one) for one in (BASE, host))
    assert ((own["missed"], own["gone"]), (other["missed"], other["gone"])) == ((10, 3), (4, 0))
    assert by(other, "missing") == {"slae": 4}
    of_tag = shown(gateway, tag="a", interval="day")
    assert (of_tag["missed"], of_tag["gone"], of_tag["missing"]) == (0, 0, [])
    assert of_tag["series"][-1]["missed"] == 0
    text = gateway.api.get(STATS, params={"format": "csv", "interval": "day"}).text
    lines = list(csv.reader(text.splitlines()))
    assert ["visits", "", "missed", "14"] in lines
    assert ["missing", "", f"'{GUARDED}", "2"] in lines
    assert ["series", found["series"][-1]["start"][:11] + "00:00:00Z", "gone", "3"] in lines
    told = hopgate(gateway.settings, "stats", "--domain", BASE, "--interval", "day").stdout
    assert "without a redirect: 10 missed, 3 gone" in told
    assert f"missing: slae 3, {GUARDED} 2, other 5" in told
    assert "1 person, 0 bots, 0 previews, 0 prefetches, 10 missed, 3 gone" in told
