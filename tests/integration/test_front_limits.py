"""The front and its application charge the same clients to the same limits."""

from __future__ import annotations

import itertools
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.front_gateway import get, is_of_the_front, limited, total
from tests.servers.hopgate import Gateway, eventually
from tests.servers.raw_http import RawAnswer, answer_on


@pytest.fixture(scope="module")
def strict(tmp_path_factory) -> Iterator[Gateway]:
    """Few visits for each client that the proxy 127.0.0.1 names."""
    limits = {
        "HOPGATE_LIMIT_REDIRECT": "3/h burst 3",
        "HOPGATE_LIMIT_NOT_FOUND": "2/h burst 2",
        "HOPGATE_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    with limited(tmp_path_factory.mktemp("strict"), **limits) as gateway:
        yield gateway


def client(address: str) -> str:
    return f"X-Forwarded-For: 192.0.2.66, {address}"


def hot(gateway: Gateway, path: str, *headers: str) -> RawAnswer:
    """Return the front's answer to a client that may be refused, while others keep the link hot."""
    answers = []
    others = (client(f"198.18.{number >> 8}.{number & 255}") for number in itertools.count())

    def is_hot() -> bool:
        get(gateway, path, next(others))
        answers.append(get(gateway, path, *headers))
        return is_of_the_front(answers[-1])

    eventually(is_hot, what=f"the front answers {path}")
    return answers[-1]


@pytest.mark.parametrize(
    "forms",
    [
        ("198.51.100.1", "::ffff:198.51.100.1", "[198.51.100.1]", "198.51.100.1:443"),
        ("2001:db8::1", "2001:DB8:0:0::ffff", "[2001:db8::2]:443", "2001:db8::3%eth0"),
    ],
)
def test_client_is_the_same_hot_and_cold(strict, forms):
    """The front and the application charge one bucket, for each form of an address."""
    statuses = [get(strict, "/known", client(form)).status for form in forms]

    assert statuses == [302, 302, 302, 429]
    assert get(strict, "/unknown", client(forms[0])).status == 429


def test_unreadable_address_is_refused_hot_too(strict):
    get(strict, "/known", client("198.51.100.2"))

    assert get(strict, "/known", client("\xe9, 198.51.100.9")).status == 400


def test_wide_network_is_limited_as_a_whole(strict):
    """A /48 has the budget of four /64, hot or cold."""
    networks = [client(f"2001:db8:7:{number}::1") for number in range(5)]

    statuses = [get(strict, "/known", network).status for network in networks for _ in range(3)]

    assert statuses == [302] * 12 + [429] * 3


def test_refusal_is_the_same_hot_and_cold(strict):
    visitor = client("198.51.100.3")
    for _ in range(3):
        get(strict, "/known", visitor)

    # An escape is for the application to decode.
    warm, cold = hot(strict, "/known", visitor), get(strict, "/%6bnown", visitor)

    assert (warm.status, cold.status) == (429, 429)
    assert not is_of_the_front(cold)
    assert warm.body == cold.body
    changing = {"date", "server", "ratelimit", "retry-after"}
    assert {name for name, _ in warm.headers} == {name for name, _ in cold.headers}
    assert [pair for pair in sorted(warm.headers) if pair[0] not in changing] == [
        pair for pair in sorted(cold.headers) if pair[0] not in changing
    ]
    for answer in (warm, cold):
        assert 1000 <= int(answer.header("retry-after") or 0) <= 1200


def test_not_found_limit_hides_hot_404s_too(strict):
    visitor = client("198.51.100.4")
    for _ in range(2):
        assert get(strict, "/guess", visitor).status == 404

    assert hot(strict, "/guess", visitor).status == 429


@pytest.mark.parametrize(("path", "last"), [("/known", 5), ("/%6bnown", 6)])
def test_peer_is_named_by_the_front_alone(strict, path, last):
    """Of a peer that it believed, the address that the trusted proxy names would not count."""
    visitor = client(f"198.51.100.{last}")
    forged = "X-Hopgate-Peer: 203.0.113.{}:1"

    statuses = [get(strict, path, forged.format(number), visitor).status for number in range(4)]

    assert statuses == [302, 302, 302, 429]


def test_limit_is_exact_under_many_threads(tmp_path):
    """All requests together get no more than burst + rate · t, whichever side answers them."""
    burst, rate, threads = 150, 50, 8
    limits = {"HOPGATE_LIMIT_REDIRECT": f"{rate}/s burst {burst}", "HOPGATE_FRONT_THREADS": "2"}
    with limited(tmp_path, **limits) as gateway:
        began = time.monotonic()
        ends_at = began + 1.0

        def visit(number: int) -> Counter[int]:
            statuses: Counter[int] = Counter()
            request = f"GET /{'known' if number % 4 else 'unknown'} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
            with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
                while time.monotonic() < ends_at:
                    connection.sendall(request)
                    statuses[answer_on(connection).status] += 1
            return statuses

        with ThreadPoolExecutor(threads) as pool:
            statuses = sum(pool.map(visit, range(threads)), Counter())
        took_s = time.monotonic() - began
        counted = total(gateway, "hopgate_limiter_decisions_total", policy="redirect", decision="admitted")

    admitted = statuses[302] + statuses[404]
    assert set(statuses) <= {302, 404, 429}
    assert burst <= admitted <= burst + rate * took_s
    assert counted == admitted
    assert statuses[429] > 0
