"""Batches through the front: large bodies, and bodies whose length is not known."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.api_calls import LINKS, problem
from tests.integration.front_gateway import FRONT
from tests.servers.hopgate import UNLIMITED, Gateway, make_key

BULK = f"{LINKS}/bulk"
ITEM = {"long_url": "https://example.com/" + "x" * 200}


@pytest.fixture(scope="module")
def client(tmp_path_factory) -> Iterator[httpx.Client]:
    directory = tmp_path_factory.mktemp("front")
    settings = {"HOPGATE_DATA_DIR": str(directory / "data"), **UNLIMITED, **FRONT}
    headers = {"Authorization": f"Bearer {make_key(settings)}"}
    with (
        Gateway(settings, directory) as gateway,
        httpx.Client(base_url=gateway.url, headers=headers, timeout=30) as client,
    ):
        yield client


def test_large_batch_is_stored(client):
    answer = client.post(BULK, json={"links": [ITEM] * 2_000})

    assert [one["status"] for one in answer.json()["results"]] == [201] * 2_000


def test_lines_of_unknown_length_are_answered(client):
    lines = (json.dumps(ITEM).encode() + b"\n" for _ in range(1_200))

    answer = client.post(BULK, content=lines, headers={"Content-Type": "application/x-ndjson"})

    assert [json.loads(line)["status"] for line in answer.text.splitlines()] == [201] * 1_200


def test_other_paths_take_no_large_body(client):
    problem(client.post(LINKS, json={**ITEM, "title": "x" * 70_000}), 413, "body_too_large")


def test_large_batch_comes_below_the_path_of_the_base_url(tmp_path):
    settings = {
        "HOPGATE_DATA_DIR": str(tmp_path / "data"),
        "HOPGATE_BASE_URL": "http://hop.example/go",
        **UNLIMITED,
        **FRONT,
    }
    headers = {"Authorization": f"Bearer {make_key(settings)}"}
    with Gateway(settings, tmp_path) as gateway:
        answer = httpx.post(
            f"{gateway.url}/go{BULK}", json={"links": [ITEM] * 500}, headers=headers, timeout=30
        )

    assert answer.status_code == 200
