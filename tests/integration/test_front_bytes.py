"""
The front answers every request as the gateway does without it: the same bytes, but for `date` and `server`.

What differs is listed in SECURITY.md, each line of it with a row.
"""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import h11
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.front_alone import alone
from tests.integration.front_gateway import FRONT, get, is_of_the_front
from tests.integration.http_bytes import HOST, LAST, ROWS, Row, text
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, make_key

SLUG, METERED = "abcdefg", "metered"
LINKS = "/api/v1/links"
LIMITS = (Path(__file__).parents[2] / "SECURITY.md").read_text().partition("## Known limits")[2]
# What differs between two requests, or between the two sides.
CHANGING = re.compile(
    r"(?im)^(date|server): .*\r\n|^(x-request-id): .*\r\n"
    r"|(?<=location: /api/v1/links/)\w+"
    r'|"(?:created_at|updated_at|slug|short_url|visits|owner)":(?:"[^"]*"|\d+)'
)


@dataclass(frozen=True)
class Side:
    gateway: Gateway
    key: str

    def ask(self, text: str, *, ends_early: bool = False) -> str:
        """Send *text*, then `LAST` or the end; return all that comes back."""
        for name, value in {
            "SLUG": SLUG,
            "ESCAPED": f"%{ord(SLUG[0]):02x}{SLUG[1:]}",
            "KEY": self.key,
        }.items():
            text = text.replace(f"{{{name}}}", value)
        received = b""
        with socket.create_connection(("127.0.0.1", self.gateway.port), timeout=20) as connection:
            with contextlib.suppress(OSError):
                if ends_early:
                    # One packet carries the last bytes and the end, so both are there when the gateway reads.
                    connection.sendall(text.encode("latin-1"), socket.MSG_MORE)
                    connection.shutdown(socket.SHUT_WR)
                else:
                    connection.sendall((text + LAST).encode("latin-1"))
            with contextlib.suppress(ConnectionResetError):
                while chunk := connection.recv(65536):
                    received += chunk
        return received.decode("latin-1")


@dataclass(frozen=True)
class Sides:
    front: Side
    alone: Side

    def warm(self) -> None:
        """Put the link into both L1 caches."""
        for side in (self.front, self.alone):
            get(side.gateway, f"/{SLUG}")


@pytest.fixture(scope="module")
def sides(tmp_path_factory) -> Iterator[Sides]:
    with ExitStack() as stack:

        def started(extra: dict[str, str]) -> Side:
            folder = tmp_path_factory.mktemp("side")
            environment = {"HOPGATE_DATA_DIR": str(folder / "data"), **UNLIMITED, **extra}
            gateway = stack.enter_context(Gateway(environment, folder))
            key = make_key(environment)
            for slug, visits in ((SLUG, None), ("unvisited", None), (METERED, 1_000_000)):
                link = {"long_url": "https://example.com/", "slug": slug, "max_visits": visits}
                headers = {"Authorization": f"Bearer {key}"}
                assert httpx.post(f"{gateway.url}{LINKS}", json=link, headers=headers).status_code == 201
            return Side(gateway, key)

        sides = Sides(started(FRONT), started({"HOPGATE_FRONT": "off"}))
        eventually(lambda: is_of_the_front(get(sides.front.gateway, f"/{SLUG}")), what="the link is hot")
        yield sides


def statuses(received: str) -> list[int]:
    return [int(status) for status in re.findall(r"HTTP/1\.[01] (\d{3}) ", received)]


def shown(received: str) -> list[tuple[str, list[str], str]]:
    """Return each answer: its first line, its fields in any order, and what follows them."""
    answers = []
    for answer in re.split(r"(?=HTTP/1\.[01] \d{3} )", CHANGING.sub("", received)):
        head, _, body = answer.partition("\r\n\r\n")
        line, *fields = head.split("\r\n")
        answers.append((line, sorted(fields), body))
    return answers


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_bytes_are_answered_by_the_rules(sides, row: Row):
    sides.warm()

    received = sides.front.ask(row.sent, ends_early=row.ends_early)

    assert statuses(received) == [*row.answers, *([] if row.closes else [200])]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_front_changes_nothing(sides, row: Row):
    """Or SECURITY.md says so."""
    for _ in range(5):
        sides.warm()
        behind, direct = (
            side.ask(row.sent, ends_early=row.ends_early) for side in (sides.front, sides.alone)
        )
        # Some differ only while the link is in the L1 cache, which a slow machine may outlast.
        if row.differs is None or statuses(behind) != statuses(direct):
            break

    if row.differs is not None:
        assert statuses(behind) != statuses(direct), "take it off the list"
    elif row.ends_early:
        # Not well formed: the words of the refusal may be others.
        assert statuses(behind) == statuses(direct)
    else:
        assert shown(behind) == shown(direct)


def test_differences_are_listed():
    """Each difference has a line in SECURITY.md that says so, and each such line a row."""
    lines = [" ".join(line.split()) for line in re.split(r"\n- ", LIMITS)[1:]]
    marked = {line for line in lines if line.endswith("†") or " †" in line.split(". ")[-1]}
    named = {line for row in ROWS if row.differs for line in lines if row.differs in line}

    for row in ROWS:
        assert row.differs is None or any(row.differs in line for line in marked), row.name
    # It takes megabytes to show; test_front_caps.py does.
    assert {line for line in marked - named if "reads nothing" not in line} == set()


# --- requests that no row has ------------------------------------------------------------------

PIECES = st.sampled_from(
    rb"\r|\n|\r\n|\r\n\r\n| |\t|\0|\x0b|\x7f|\xff|:|,|;|%|/|?|#|*|//|..|abc|0|-1|GET |POST |HTTP/1.1|"
    rb"HTTP/1.0|chunked|"
    rb"Content-Length: 3\r\n|Transfer-Encoding: chunked\r\n|Connection: close\r\n|Expect: 100-continue\r\n|"
    rb"0\r\n\r\n|Host: hop.example\r\n".decode("unicode_escape").split("|")
)
CHANGES = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 6), PIECES), min_size=1, max_size=4)
# Of these, everything is the application's, so no difference is allowed for.
SEEDS = [row.sent for row in ROWS if len(row.sent) < 1000 and row.sent and not row.differs]


def changed(text: str, changes: list[tuple[int, int, str]]) -> str:
    for position, removed, piece in changes:
        at = position % (len(text) + 1)
        text = text[:at] + piece + text[at + removed :]
    return text


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(SEEDS), CHANGES)
def test_front_changes_nothing_of_any_request(sides, seed, changes):
    """Both sides answer as many requests, with the same statuses: none sees one that the other does not."""
    # Host of a link in the L1 cache is checked by the front alone, of this one by both.
    sent = changed(seed.replace("{SLUG}", METERED), changes)

    behind, direct = (statuses(side.ask(sent, ends_early=True)) for side in (sides.front, sides.alone))

    # Alone, the gateway may leave a client without an answer that ends early.
    assert behind[: len(direct)] == direct, sent


# --- what the application sees ---------------------------------------------------------------------

SMUGGLED = "GET /a/stolen HTTP/1.1\r\nHost: x\r\n\r\n"
TO = "/a/b"


@pytest.mark.parametrize(
    ("sent", "targets"),
    [
        (text(f"GET {TO} HTTP/1.1", HOST, "X-A: b", "X-B: c\nX-C: d", end="\n"), [TO]),
        (text(f"GET {TO} HTTP/1.1", HOST, "Transfer-Encoding: chunked") + "3;x=y\r\nabc\r\n0\r\n\r\n", [TO]),
        (text(f"POST {TO} HTTP/1.1", HOST, "Transfer-Encoding: chunked") + f"0\r\n\r\n{SMUGGLED}", [TO]),
        (
            text(f"POST {TO} HTTP/1.1", HOST, "Transfer-Encoding: chunked", "Content-Length: 5")
            + f"0\r\n\r\n{SMUGGLED}",
            [TO],
        ),
        (
            text(f"POST {TO} HTTP/1.1", HOST, "Content-Length: 5", "Transfer-Encoding: chunked")
            + f"0\r\n\r\n{SMUGGLED}",
            [TO],
        ),
        (text(f"POST {TO} HTTP/1.1", HOST, f"Content-Length: {len(SMUGGLED)}") + SMUGGLED, [TO]),
        (
            text(f"GET {TO} HTTP/1.1", HOST, "Upgrade: h2c", "Connection: upgrade") + SMUGGLED,
            [TO, "/a/stolen"],
        ),
        (
            text(f"GET http://hop.example{TO} HTTP/1.1", HOST) + SMUGGLED,
            [f"http://hop.example{TO}", "/a/stolen"],
        ),
        (text(f"GET {TO} HTTP/1.1", HOST, "X-Hopgate-Peer: 192.0.2.1:1", "x-hopgate-other: 1"), [TO]),
    ],
    ids=range(9),
)
def test_request_is_handed_on_as_it_is_read(sent, targets):
    """Written anew: another reader, a strict one, finds the same requests, and only the front's own peer."""
    with alone() as alone_, alone_.connect() as connection:
        connection.sendall((sent + LAST).encode("latin-1"))
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
        requests = [request for stream in alone_.control.streams for request in read(bytes(stream))]

    assert [target for target, _ in requests if target != "/healthz"] == targets
    for _, fields in requests:
        names = [name for name, _ in fields]
        assert [name for name in names if name.startswith(b"x-hopgate-")] == [b"x-hopgate-peer"]
        assert dict(fields)[b"x-hopgate-peer"].startswith(b"127.0.0.1:")
        assert len({b"content-length", b"transfer-encoding"}.intersection(names)) <= 1


def read(stream: bytes) -> list[tuple[str, list[tuple[bytes, bytes]]]]:
    """Return the targets and fields of the requests in *stream*."""
    requests = []
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(stream)
    while True:
        event = reader.next_event()
        if isinstance(event, h11.Request):
            requests.append((event.target.decode(), list(event.headers)))
        elif event is h11.NEED_DATA:
            return requests
        elif event is h11.PAUSED:
            reader.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            reader.send(h11.EndOfMessage())
            reader.start_next_cycle()
