"""Statistics over HTTP: what visits looked like, with a front and without one, and never an address."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet  # type: ignore[import-untyped]

from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_key

API = "/api/v1"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0"
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/17.0 Mobile/15E148 Safari/604.1"
)
# Addresses that no file and no log may have.
VIENNA, BERLIN, NOWHERE = "192.0.2.71", "198.51.100.72", "2001:db8:77:78::79"
CANARIES = (VIENNA, BERLIN, "2001:db8:77:78")


@dataclass(frozen=True)
class Site:
    """A gateway with its API."""

    gateway: Gateway
    api: httpx.Client
    data: Path

    def create(self, **fields: Any) -> str:
        answer = self.api.post(f"{API}/links", json={"long_url": "https://example.com/", **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()["slug"]

    def visit(
        self, slug: str, client: str = VIENNA, times: int = 1, *, host: str = "", **headers: Any
    ) -> None:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with httpx.Client(base_url=self.gateway.url, headers={"x-forwarded-for": client}) as visitor:
            visitor.headers.pop("user-agent")
            if host:
                visitor.headers["host"] = host
            for _ in range(times):
                assert visitor.get(f"/{slug}", headers=sent).status_code in {302, 503}

    def stats(self, slug: str, **query: str) -> dict[str, Any]:
        answer = self.api.get(f"{API}/links/{slug}/stats", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def settled(self, slug: str, visits: int, **query: str) -> dict[str, Any]:
        """The visits of *slug* once there are that many, within five seconds."""

        def is_there() -> bool:
            shown = self.stats(slug, **query)
            return shown["total"] == visits and kinds(shown["visits"]) == visits

        eventually(is_there, timeout=30, what=f"{visits} visits are described")
        return self.stats(slug, **query)["visits"]


def kinds(visits: dict[str, Any]) -> int:
    return sum(visits[kind] for kind in ("people", "bots", "previews", "prefetches"))


def by(visits: dict[str, Any], field: str) -> dict[str, int]:
    return {one["value"]: one["visits"] for one in visits[field]}


def write_places(path: Path) -> None:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True)
    writer.insert_network(
        IPSet(["192.0.2.0/24"]), {"country": {"iso_code": "AT"}, "city": {"names": {"en": "Vienna"}}}
    )
    writer.insert_network(IPSet(["198.51.100.0/24"]), {"country": {"iso_code": "DE"}})
    writer.to_db_file(str(path))


def opened(directory: Path, **settings: str) -> Iterator[Site]:
    full = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": "http://hop.example",
        "HOPGATE_TRUSTED_PROXIES": "127.0.0.1/32",
        **UNLIMITED,
        **settings,
    }
    headers = {"Authorization": f"Bearer {make_key(full)}"}
    with Gateway(full, directory) as gateway, httpx.Client(base_url=gateway.url, headers=headers) as api:
        yield Site(gateway, api, directory / "data")


@pytest.fixture(scope="module", params=["on", "off"])
def front(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def site(front: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("statistics")
    write_places(directory / "geo.mmdb")
    yield from opened(directory, HOPGATE_FRONT=front, HOPGATE_GEO_FILE=str(directory / "geo.mmdb"))


def test_visits_are_shown_by_what_they_looked_like(site):
    """The same numbers with a front and without one."""
    slug = site.create(long_url="https://example.com/?utm_campaign=spring&utm_medium=qr")
    before = site.api.get(f"{API}/stats").json()["visits"]
    person = {
        "user_agent": FIREFOX,
        "accept_language": "de-AT,de;q=0.9",
        "referer": "https://www.News.example/a",
    }
    site.visit(slug, VIENNA, 3, **person)
    site.visit(slug, BERLIN, 2, user_agent=IPHONE, accept_language="en")
    site.visit(f"{slug}?utm_source=mail&utm_campaign=sale", NOWHERE, 1, user_agent=IPHONE)
    site.visit(slug, VIENNA, 4, user_agent="Twitterbot/1.0")
    site.visit(slug, VIENNA, 5, user_agent="curl/8.5.0")
    site.visit(slug, VIENNA, 2, user_agent=FIREFOX, sec_purpose="prefetch;prerender")
    site.visit(slug, VIENNA, 1, user_agent=FIREFOX, purpose="")
    site.visit(slug, VIENNA, 1, user_agent=b"caf\xc3\xa9")
    site.visit(slug, VIENNA, 1)
    with httpx.Client(base_url=site.gateway.url) as client:
        assert client.head(f"/{slug}").status_code == 302

    visits = site.settled(slug, 20)

    assert {kind: visits[kind] for kind in ("people", "bots", "previews", "prefetches")} == {
        "people": 7,
        "bots": 7,
        "previews": 4,
        "prefetches": 2,
    }
    assert visits["visitors"] == 3
    assert by(visits, "referrer") == {"news.example": 3, "direct": 4}
    assert by(visits, "country") == {"AT": 4, "DE": 2, "unknown": 1}
    assert by(visits, "city") == {"Vienna, AT": 4, "unknown": 3}
    assert by(visits, "language") == {"de": 3, "en": 2, "unknown": 2}
    assert by(visits, "browser") == {"Firefox": 4, "Mobile Safari": 3}
    assert by(visits, "device") == {"desktop": 4, "phone": 3}
    assert by(visits, "bot") == {"curl": 5, "Twitterbot": 4, "unknown": 2}
    assert by(visits, "source") == {"mail": 1}
    assert by(visits, "medium") == {"qr": 7}
    assert by(visits, "campaign") == {"spring": 6, "sale": 1}
    after = site.api.get(f"{API}/stats").json()["visits"]
    assert kinds(after) - kinds(before) == 20
    assert after["people"] - before["people"] == 7


def test_metered_links_count_what_is_a_visit(site):
    """A preview spends no visit of the limit and is no click; a prefetch is refused."""
    slug = site.create(max_visits=100)
    site.visit(slug, VIENNA, 3, user_agent=FIREFOX)
    site.visit(slug, VIENNA, 2, user_agent="Twitterbot/1.0")
    site.visit(slug, VIENNA, 2, user_agent=FIREFOX, sec_purpose="prefetch")

    visits = site.settled(slug, 3)

    assert (visits["people"], visits["previews"], visits["prefetches"]) == (3, 0, 0)


def test_links_of_other_domains_have_their_own(site):
    host = "go.example"
    answer = site.api.post(f"{API}/domains", json={"host": host})
    assert answer.status_code in {201, 409}, answer.text
    here = site.create(slug="twice-here")
    there = site.create(slug="twice-here", domain=host)
    site.visit(here, VIENNA, 1, host="hop.example", user_agent=FIREFOX)
    site.visit(there, VIENNA, 2, host=host, user_agent=FIREFOX)

    assert site.settled(here, 1)["people"] == 1
    assert site.settled(there, 2, domain=host)["people"] == 2


def test_no_address_is_written_anywhere(site):
    """Whatever was visited by the tests before: no file of the data folder has an address, and no log."""
    slug = site.create()
    for client in (VIENNA, BERLIN, NOWHERE):
        site.visit(slug, client, 1, user_agent=FIREFOX)
    site.settled(slug, 3)

    db = apsw.Connection(str(site.data / "hopgate.db"), flags=apsw.SQLITE_OPEN_READONLY)
    tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    held = [(name, row) for name in tables for row in db.execute(f'SELECT * FROM "{name}"')]
    db.close()
    assert any(name == "visit_counts" for name, _ in held)
    for canary in CANARIES:
        assert [one for one in held if canary in repr(one)] == []
        assert canary not in site.gateway.output
        for path in site.data.rglob("*"):
            assert not path.is_file() or canary.encode() not in path.read_bytes(), path


def test_nothing_is_kept_if_it_is_off(front, tmp_path):
    for site in opened(tmp_path, HOPGATE_FRONT=front, HOPGATE_ANALYTICS="off"):
        slug = site.create()
        site.visit(slug, VIENNA, 3, user_agent=FIREFOX)
        deadline = time.monotonic() + 15
        while site.stats(slug)["total"] < 3:
            assert time.monotonic() < deadline, "clicks are counted"
        # Descriptions would be a flush behind.
        time.sleep(1.5)
        visits = site.stats(slug)["visits"]
        assert (kinds(visits), visits["visitors"]) == (0, 0)
        assert not (site.data / "visits").exists()


def test_objections_are_respected_if_the_operator_says_so(front, tmp_path):
    for site in opened(tmp_path, HOPGATE_FRONT=front, HOPGATE_RESPECT_DNT="on"):
        slug = site.create()
        site.visit(slug, VIENNA, 2, user_agent=FIREFOX, dnt="1")
        site.visit(slug, VIENNA, 1, user_agent=FIREFOX, sec_gpc="1")
        site.visit(slug, VIENNA, 1, user_agent=FIREFOX, dnt="0")
        visits = site.settled(slug, 4)
        assert (visits["people"], visits["visitors"]) == (4, 1)
        assert by(visits, "browser") == {"Firefox": 1}


def test_file_that_knows_no_places_keeps_a_gateway_from_starting(tmp_path):
    (tmp_path / "geo.mmdb").write_bytes(b"no database")
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_GEO_FILE": str(tmp_path / "geo.mmdb")}
    gateway = Gateway(settings, tmp_path)
    with pytest.raises(AssertionError, match="HOPGATE_GEO_FILE"), gateway:
        pass


def test_visits_by_day_and_the_period_before(site):
    slug = site.create()
    site.visit(slug, VIENNA, 2, user_agent=FIREFOX)
    site.visit(slug, VIENNA, 1, user_agent="curl/8.5.0")
    site.settled(slug, 3)

    shown = site.stats(slug, interval="day", time_zone="Asia/Kathmandu", compare="true")

    # An hour counts for the day in which it begins, so 24 hours can be one day of this zone: 00:45 to 23:45.
    assert 1 <= len(shown["series"]) <= 2
    assert all(one["start"].endswith("T00:00:00+05:45") for one in shown["series"])
    assert [sum(one[kind] for one in shown["series"]) for kind in ("people", "bots", "previews")] == [2, 1, 0]
    assert shown["before"]["until"] == shown["since"]
    assert kinds(shown["before"]) == shown["before"]["visitors"] == 0
    # The hours of a link are the same that its series adds up.
    by_hour = site.stats(slug, interval="hour")["series"]
    assert [kinds(one) for one in by_hour] == [one["clicks"] for one in site.stats(slug)["hours"]]
    plain = site.stats(slug)
    assert (plain["series"], plain["before"]) == (None, None)
    overall = site.api.get(f"{API}/stats", params={"interval": "day", "compare": "true"}).json()
    assert sum(map(kinds, overall["series"])) == kinds(overall["visits"])


@pytest.mark.parametrize("path", ["stats", "links/{slug}/stats"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("interval=week", "interval"),
        ("interval=", "interval"),
        ("interval=day&time_zone=Europe/Atlantis", "time_zone"),
        ("interval=day&time_zone=../../etc/passwd", "time_zone"),
        ("interval=day&time_zone=/etc/passwd", "time_zone"),
        ("interval=day&time_zone=Europe", "time_zone"),
        ("interval=day&time_zone=", "time_zone"),
        ("interval=day&time_zone=%00", "time_zone"),
        ("interval=day&time_zone=" + "a" * 5000, "time_zone"),
        ("time_zone=UTC", "time_zone"),
        ("compare=yes", "compare"),
        ("top=0", "top"),
        ("top=251", "top"),
        ("top=ten", "top"),
        ("top=", "top"),
    ],
)
def test_parameters_that_are_wrong_are_named(site, path, query, field):
    slug = site.create()

    answer = site.api.get(f"{API}/{path.format(slug=slug)}?{query}")

    assert answer.status_code == 422, answer.text
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_top_says_how_many_values_are_named(site):
    slug = site.create()
    for number in range(12):
        site.visit(slug, VIENNA, user_agent=FIREFOX, referer=f"https://r{number:02}.example/")
    site.settled(slug, 12)

    for query, named in (({}, 10), ({"top": "1"}, 1), ({"top": "250"}, 12)):
        shown = by(site.stats(slug, **query)["visits"], "referrer")
        expected = {f"r{number:02}.example": 1 for number in range(named)}
        assert shown == (expected if named == 12 else {**expected, "": 12 - named})
    assert len(by(site.api.get(f"{API}/stats", params={"top": "1"}).json()["visits"], "referrer")) == 2


def test_statistics_as_csv(site):
    slug = site.create()
    campaign = "utm_campaign=%3D1%2B1&utm_source=a%22b%2Cc&utm_medium=x%E2%80%A8y"
    site.visit(f"{slug}?{campaign}", VIENNA, 2, user_agent=FIREFOX)
    site.visit(slug, VIENNA, 1, user_agent="curl/8.5.0")
    site.settled(slug, 3)
    path, query = f"{API}/links/{slug}/stats", {"interval": "day", "compare": "true"}
    whole = site.api.get(path, params=query).json()

    answer = site.api.get(path, params={**query, "format": "csv"})

    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    header, *lines = csv.reader(answer.text.split("\n")[:-1])
    # A character that ends a line for Python, and for no reader of CSV.
    assert ["medium", "", "x\u2028y", "2"] in lines
    printed = hopgate({"HOPGATE_DATA_DIR": str(site.data)}, "links", "stats", slug, "--csv").stdout
    assert "medium,,x\\u2028y,2" in printed.split("\n")
    assert header == ["section", "start", "value", "visits"]
    assert lines[0] == ["total", "", "", "3"]
    assert ["campaign", "", "'=1+1", "2"] in lines
    assert ["source", "", 'a"b,c', "2"] in lines
    assert ["visits", "", "people", "2"] in lines
    assert ["visits", "", "visitors", "1"] in lines
    assert ["series", whole["series"][-1]["start"], "bots", "1"] in lines
    assert ["before", whole["before"]["since"], "visitors", "0"] in lines
    hours = [[line[1], int(line[3])] for line in lines if line[0] == "hours"]
    assert hours == [[one["hour"], one["clicks"]] for one in whole["hours"]]
    for accept, is_csv in (("text/csv", True), ("text/csv;q=0.5, application/json", False), ("*/*", False)):
        for asked in (path, f"{API}/stats"):
            shown = site.api.get(asked, headers={"Accept": accept})
            assert (shown.headers["content-type"] == "text/csv; charset=utf-8") is is_csv
            assert shown.headers["vary"] == "accept"
    assert site.api.get(path, headers={"Accept": "text/csv"}, params={"format": "json"}).json()["total"] == 3
    refused = site.api.get(path, params={"format": "xml"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "format")


def test_visits_of_a_link_without_analytics_are_only_counted(site):
    slug, other = site.create(), site.create()
    changed = site.api.patch(f"{API}/links/{slug}", json={"analytics": False})
    assert (changed.status_code, changed.json()["analytics"]) == (200, False)
    before = kinds(site.api.get(f"{API}/stats").json()["visits"])

    site.visit(slug, VIENNA, 2, user_agent=FIREFOX)
    site.visit(other, VIENNA, 1, user_agent=FIREFOX)
    site.settled(other, 1)
    eventually(lambda: site.stats(slug)["total"] == 2, 15, "clicks are counted")

    visits = site.stats(slug)["visits"]
    assert (kinds(visits), visits["visitors"]) == (0, 0)
    assert kinds(site.api.get(f"{API}/stats").json()["visits"]) == before + 1
    assert site.api.post(f"{API}/links/{slug}/undo").json()["analytics"] is True


def test_hours_of_more_than_a_month_are_too_many(site):
    query = {"since": "2030-01-01T00:00:00Z", "until": "2030-03-01T00:00:00Z", "interval": "hour"}

    assert site.api.get(f"{API}/stats", params=query).status_code == 422
    assert site.api.get(f"{API}/stats", params={**query, "interval": "day"}).status_code == 200


def test_command_line_shows_days_and_the_period_before(tmp_path, cli):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path), "HOPGATE_BASE_URL": "http://hop.example"}
    make_key(settings)
    assert cli(settings, "links", "create", "https://example.com/", "--slug", "sale").returncode == 0

    shown = cli(
        settings, "links", "stats", "sale", "--interval", "day", "--time-zone", "Asia/Kathmandu", "--compare"
    )

    assert shown.returncode == 0, shown.stderr
    assert "T00:00+05:45  no visits" in shown.stdout
    assert "before: no visits, about 0 visitors" in shown.stdout
    for options in (
        ("--interval", "week"),
        ("--time-zone", "UTC"),
        ("--interval", "day", "--time-zone", "Europe/Atlantis"),
    ):
        refused = cli(settings, "links", "stats", "sale", *options)
        assert refused.returncode != 0
        assert options[-2] in refused.stderr
