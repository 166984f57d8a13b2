"""The words and the algorithm of a limit, through real gateways that count alone or share through Redis."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

import httpx
import pytest

from tests.servers.hopgate import UNLIMITED, UNREACHABLE, Gateway, hopgate, make_key, make_store
from tests.servers.stack import stack_settings

LIMIT = 40
ALGORITHMS = ["token_bucket", "sliding_window"]
NAMES = [name.removeprefix("HOPGATE_LIMIT_") for name in UNLIMITED]


@pytest.fixture
def alone(tmp_path):
    return {"HOPGATE_DATA_DIR": str(tmp_path / "data"), "HOPGATE_BASE_URL": "http://hop.example", **UNLIMITED}


@pytest.mark.parametrize("algorithm", ["", *ALGORITHMS])
def test_gateway_keeps_the_limit_of_these_words(alone, tmp_path, algorithm):
    make_store(alone)
    assert hopgate(alone, "links", "create", "https://example.com/", "--slug", "known").returncode == 0
    limit = {"HOPGATE_LIMIT_REDIRECT": f"3 per 10 Hours, 100/week {algorithm}".strip()}
    with Gateway({**alone, **limit}, tmp_path) as gateway, httpx.Client(base_url=gateway.url) as client:
        answers = [client.get("/known") for _ in range(5)]

    assert [answer.status_code for answer in answers] == [302, 302, 302, 429, 429]
    # A token comes back after a third of the period, the window's first units after all of it.
    longest = 10 * 3600 * (18 / 16 if algorithm == "sliding_window" else 1 / 3) + 60
    shortest = 10 * 3600 * (0.99 if algorithm == "sliding_window" else 0.3)
    assert shortest < int(answers[4].headers["retry-after"]) < longest


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", ["API", "CREATE", "NOT_FOUND"])
def test_every_limit_takes_an_algorithm(alone, tmp_path, name, algorithm):
    headers = {"Authorization": f"Bearer {make_key(alone)}"}
    limit = {f"HOPGATE_LIMIT_{name}": f"2 per 3 hours {algorithm}"}
    with Gateway({**alone, **limit}, tmp_path) as gateway, httpx.Client(base_url=gateway.url) as client:

        def ask(number: int) -> httpx.Response:
            match name:
                case "API":
                    return client.get("/api/v1/links", headers=headers)
                case "CREATE":
                    link = {"long_url": f"https://example.com/{number}"}
                    return client.post("/api/v1/links", headers=headers, json=link)
                case _:
                    return client.get(f"/guess-{number}")

        answers = [ask(number) for number in range(3)]

    admitted = {"API": 200, "CREATE": 201, "NOT_FOUND": 404}[name]
    assert [answer.status_code for answer in answers] == [admitted, admitted, 429]
    waits_for_all = int(answers[2].headers["retry-after"]) > 2.9 * 3600
    assert waits_for_all == (algorithm == "sliding_window")


@pytest.mark.parametrize("services", [{}, UNREACHABLE], ids=["alone", "shared"])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", ["10 per fortnight", "10/s leaky_bucket", "10/s burst 20 sliding_window"])
def test_bad_words_are_refused_in_one_line(alone, name, limit, services):
    done = hopgate({**alone, **services, f"HOPGATE_LIMIT_{name}": limit}, "serve")

    assert done.returncode != 0
    [line] = done.stderr.strip().splitlines()
    assert f"HOPGATE_LIMIT_{name}" in line


@pytest.mark.services
@pytest.mark.timeout(120)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_two_gateways_share_one_limit(postgres, redis_server, rabbitmq, tmp_path, algorithm):
    settings = stack_settings(postgres, redis_server, rabbitmq)
    made = hopgate(settings, "links", "create", "https://example.com/", "--slug", "known")
    assert made.returncode == 0, made.stderr
    limited = {**settings, "HOPGATE_LIMIT_REDIRECT": f"{LIMIT} per 30 days {algorithm}"}
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    with (
        Gateway({**limited, "HOPGATE_DATA_DIR": str(folders[0] / "data")}, folders[0]) as first,
        Gateway({**limited, "HOPGATE_DATA_DIR": str(folders[1] / "data")}, folders[1]) as second,
        httpx.Client() as client,
        ThreadPoolExecutor(8) as pool,
    ):
        urls = cycle([f"{first.url}/known", f"{second.url}/known"])
        at_once = list(pool.map(client.get, [next(urls) for _ in range(4 * LIMIT)]))
        later = [client.get(next(urls)) for _ in range(2 * LIMIT)]

    statuses = [answer.status_code for answer in (*at_once, *later)]
    assert set(statuses) == {302, 429}
    # Each process admits an eighth before it has a lease; a quarter is held back for what is on lease.
    admitted = statuses.count(302)
    assert LIMIT // 2 <= admitted <= LIMIT + 2 * (LIMIT // 8)
    assert statuses[-4:] == [429] * 4
