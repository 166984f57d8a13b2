"""Batches as lines, on an embedded gateway: one line in, one line out, in order."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator

import httpx
import pytest

from app.web.bulk_stream import MAX_LINES
from tests.integration.api_calls import LINKS, create, fresh_slug, problem
from tests.servers.hopgate import eventually, make_key

BULK = f"{LINKS}/bulk"
URL = "https://example.com/"
TYPE = {"Content-Type": "application/x-ndjson"}


def line(**item) -> bytes:
    return json.dumps({"long_url": URL, **item}).encode() + b"\n"


def send(api, content, *, method="POST", query="", **headers) -> list[dict]:
    answer = api.request(method, BULK + query, content=content, headers={**TYPE, **headers})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(text) for text in answer.text.splitlines()]


def test_each_line_has_an_answer_in_order(api):
    count = 2 * MAX_LINES + 7

    answers = send(api, (line(title=str(number)) for number in range(count)))

    assert [one["line"] for one in answers] == list(range(1, count + 1))
    assert [one["link"]["title"] for one in answers] == list(map(str, range(count)))
    assert api.get(f"{LINKS}/{answers[-1]['link']['slug']}").status_code == 200


def test_broken_lines_have_their_numbers_and_do_not_undo_the_others(api):
    slug = fresh_slug()
    body = b"".join(
        [
            line(slug=slug),
            b"\n",
            b"{\n",
            b'{"long_url": "nowhere"}\n',
            b"\xff\n",
            b'{"long_url": "' + b"x" * 70_000 + b'"}\n',
            line(slug=slug),
            b'{"title": 1, "title": 2}\r\n',
            line().rstrip(),
        ]
    )

    answers = send(api, body)

    assert [(one["line"], one["status"]) for one in answers] == [
        (1, 201),
        (3, 400),
        (4, 422),
        (5, 400),
        (6, 422),
        (7, 409),
        (8, 400),
        (9, 201),
    ]
    assert answers[1]["error"]["pointer"] == "/2"


def test_lines_change_and_remove(api):
    slug = create(api)["slug"]

    edited = send(api, json.dumps({"slug": slug, "title": "x", "version": 1}).encode(), method="PATCH")
    removed = send(api, f'"{slug}"\n{{"slug": "{slug}"}}\n'.encode(), method="DELETE")

    assert [one["status"] for one in (*edited, *removed)] == [200, 204, 410]


def test_options_are_in_the_query(api):
    external_id, url = fresh_slug(), URL + fresh_slug()

    upserted = send(api, line(external_id=external_id) * 2, query="?upsert=external_id")
    reused = send(api, line(long_url=url) * 2, query="?reuse=true")

    assert [one["status"] for one in (*upserted, *reused)] == [201, 200, 201, 200]


@pytest.mark.parametrize("query", ["?upsert=slug", "?reuse=yes", "?atomic=true"])
def test_unknown_option_is_refused(api, query):
    problem(api.post(BULK + query, content=line(), headers=TYPE), 422, "invalid")


def test_options_of_json_are_in_its_body(api):
    answer = api.post(f"{BULK}?reuse=true", json={"links": [{"long_url": URL}]})

    problem(answer, 422, "invalid")


def test_reuse_in_a_line_needs_to_read_links(api, embedded):
    key = make_key(embedded.settings, "links:write")
    with httpx.Client(base_url=embedded.url, headers={"Authorization": f"Bearer {key}"}) as writer:
        [answer] = send(writer, line(reuse=True))
        problem(writer.post(f"{BULK}?reuse=true", content=line(), headers=TYPE), 403, "forbidden")

    assert answer["error"]["errors"][0]["code"] == "scope_missing"


def test_answers_come_while_lines_are_still_sent(api, embedded):
    """A client may wait for an answer before it sends its next line."""
    connection = http.client.HTTPConnection("127.0.0.1", embedded.port, timeout=20)
    connection.putrequest("POST", BULK)
    for name, value in {**TYPE, "Authorization": api.headers["Authorization"]}.items():
        connection.putheader(name, value)
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()

    def chunk(data: bytes) -> None:
        connection.send(b"%x\r\n%s\r\n" % (len(data), data))

    chunk(line(title="one"))
    answer = connection.getresponse()
    first = json.loads(answer.readline())
    chunk(line(title="two"))
    second = json.loads(answer.readline())
    chunk(b"")
    rest = answer.read()
    connection.close()

    assert [first["link"]["title"], second["link"]["title"], rest] == ["one", "two", b""]


def test_lines_of_a_key_that_was_revoked_change_nothing_more(api, embedded):
    """The client decides how long a stream goes on."""
    key = make_key(embedded.settings, "links:write")
    slugs = [fresh_slug() for _ in range(3)]
    connection = http.client.HTTPConnection("127.0.0.1", embedded.port, timeout=30)
    connection.putrequest("POST", BULK)
    for name, value in (*TYPE.items(), ("Authorization", f"Bearer {key}"), ("Transfer-Encoding", "chunked")):
        connection.putheader(name, value)
    connection.endheaders()

    def chunk(data: bytes) -> None:
        connection.send(b"%x\r\n%b\r\n" % (len(data), data))

    chunk(line(slug=slugs[0]))
    answer = connection.getresponse()
    assert json.loads(answer.readline())["status"] == 201
    assert api.delete(f"/api/v1/keys/{key.split('_')[1]}").status_code == 204
    chunk(line(slug=slugs[1]))
    refused = json.loads(answer.readline())
    assert (refused["status"], refused["error"]["code"]) == (401, "unauthorized")
    assert answer.read() == b""
    connection.close()
    problem(api.get(f"{LINKS}/{slugs[1]}"), 404, "not_found")


def test_client_that_hangs_up_leaves_whole_batches(api, embedded):
    """What is announced and does not come ends the request: lines after the last whole batch are left out."""
    slugs = [fresh_slug() for _ in range(MAX_LINES + 3)]
    body = b"".join(line(slug=slug) for slug in slugs)
    head = (
        f"POST {BULK} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
        f"Authorization: {api.headers['Authorization']}\r\nIdempotency-Key: {slugs[0]}\r\n"
        f"Content-Length: {len(body) + 100}\r\n\r\n"
    ).encode()
    with socket.create_connection(("127.0.0.1", embedded.port)) as connection:
        connection.sendall(head + body)
        eventually(lambda: api.get(f"{LINKS}/{slugs[MAX_LINES - 1]}").status_code == 200)

    assert api.get(f"{LINKS}/{slugs[0]}").status_code == 200
    assert [api.get(f"{LINKS}/{slug}").status_code for slug in slugs[MAX_LINES:]] == [404] * 3


def test_repeated_stream_goes_on_where_it_ended(api):
    headers = {"Idempotency-Key": fresh_slug()}
    whole = b"".join(line(title=str(number)) for number in range(MAX_LINES + 5))

    first = send(api, whole, **headers)
    again = send(api, whole, **headers)
    other = send(api, line(title="other"), **headers)

    assert again == first
    assert [one["error"]["code"] for one in other] == ["idempotency_key_reused"]


def test_repeatable_stream_needs_its_length(api):
    def chunks() -> Iterator[bytes]:
        yield line()

    answer = api.post(BULK, content=chunks(), headers={**TYPE, "Idempotency-Key": fresh_slug()})

    problem(answer, 411, "length_required")
