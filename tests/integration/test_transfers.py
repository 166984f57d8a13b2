"""Files over HTTP, with and without the front: `GET /api/v1/export` and `POST /api/v1/import`."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from app.service.link_import import BATCH
from tests.integration.api_calls import LINKS, problem
from tests.integration.front_gateway import ALONE, FRONT
from tests.servers.hopgate import UNLIMITED, Gateway, eventually, hopgate, make_key

EXPORT, IMPORT = "/api/v1/export", "/api/v1/import"
TARGET = "https://example.com/"
CSV = {"Content-Type": "text/csv"}


class Keyed(Gateway):
    """A gateway, and a key of it with every scope."""

    key = ""


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def settings(request, tmp_path_factory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("transfers")
    return {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": "http://hop.example",
        **request.param,
        **UNLIMITED,
    }


@pytest.fixture(scope="module")
def gateway(settings, tmp_path_factory) -> Iterator[Keyed]:
    with Keyed(settings, tmp_path_factory.mktemp("logs")) as gateway:
        gateway.key = make_key(settings)
        yield gateway


@pytest.fixture
def api(gateway) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {gateway.key}"}
    with httpx.Client(base_url=gateway.url, headers=headers, timeout=60) as client:
        yield client


def lines(answer: httpx.Response) -> list[dict]:
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(text) for text in answer.text.splitlines()]


def summary(answer: httpx.Response) -> dict:
    return lines(answer)[-1]["summary"]


def table(rows: int, prefix: str, target: str = TARGET) -> bytes:
    return b"slug,long_url,title\n" + b"".join(
        b"%s-%d,%s%d,t\n" % (prefix.encode(), n, target.encode(), n) for n in range(rows)
    )


def test_import_reports_its_progress_and_the_export_takes_it_back(gateway, api, settings):
    body = table(2 * BATCH + 7, "large") + f"large-3,{TARGET}other,t\nbad slug,{TARGET},t\n".encode()
    assert len(body) < 64 * 1024

    answers = lines(api.post(IMPORT, content=body, headers=CSV))

    told = [one["progress"] for one in answers if "progress" in one]
    assert [one["imported"] for one in told] == [BATCH, 2 * BATCH, 2 * BATCH + 7]
    assert told[-1]["bytes"] == told[-1]["of"] == len(body)
    refused = [one["refused"] for one in answers if "refused" in one]
    assert [(one["line"], one["errors"][0]["field"]) for one in refused] == [
        (2 * BATCH + 9, "slug"),
        (2 * BATCH + 10, "slug"),
    ]
    done = answers[-1]["summary"]
    assert (done["format"], done["read"], done["refused"]) == ("csv", 2 * BATCH + 9, 2)
    assert done["succeeded"] is False

    for form in ("jsonl", "csv"):
        file = api.get(EXPORT, params={"format": form})
        assert file.text == hopgate(settings, "links", "export", "--format", form).stdout
        again = summary(api.post(IMPORT, content=file.content, params={"update": "true"}))
        assert (again["read"], again["same"]) == (file.text.count("\n") - (form == "csv"), again["read"])
        assert again["succeeded"] is True


def test_large_file_is_imported_once(api):
    body = table(9_000, "huge")
    assert len(body) > 256 * 1024

    first, second = (summary(api.post(IMPORT, content=body, headers=CSV)) for _ in range(2))

    assert (first["imported"], first["same"]) == (9_000, 0)
    assert (second["imported"], second["same"]) == (0, 9_000)


def test_options_are_those_of_the_command(api):
    body = (
        b"slug,long_url,password,domain\nopt-1,https://example.com/,secret,\nopt-2,https://example.com/,,\n"
    )

    rehearsed = summary(api.post(IMPORT, content=body, params={"dry_run": "true", "allow_refused": "true"}))
    assert (rehearsed["imported"], rehearsed["refused"], rehearsed["succeeded"]) == (1, 1, True)
    assert rehearsed["dry_run"] is True
    assert api.get(f"{LINKS}/opt-2").status_code == 404

    ignoring = summary(api.post(IMPORT, content=body, params={"ignore": ["password", "domain"]}))
    assert (ignoring["imported"], ignoring["ignored_columns"]) == (2, ["password", "domain"])

    changed = body.replace(b"example.com/,,", b"example.org/,,")
    kept = summary(api.post(IMPORT, content=changed, params={"ignore": "password"}))
    assert kept["reasons"][0]["code"] == "slug_taken"
    updated = summary(api.post(IMPORT, content=changed, params={"ignore": "password", "update": "true"}))
    assert (updated["updated"], updated["same"]) == (1, 1)
    assert api.get(f"{LINKS}/opt-2").json()["long_url"] == "https://example.org/"
    assert api.get(f"{LINKS}/opt-2/history").json()["changes"][0]["by"] not in {None, "cli"}


def test_update_is_seen_by_visits_at_once(gateway, api):
    api.post(IMPORT, content=b"slug,long_url\nhot-1,https://example.com/a\n")
    visit = f"{gateway.url}/hot-1"
    assert httpx.get(visit).headers["location"] == "https://example.com/a"

    api.post(IMPORT, content=b"slug,long_url\nhot-1,https://example.com/b\n", params={"update": "true"})

    assert httpx.get(visit).headers["location"] == "https://example.com/b"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"colour,size\nred,1\n", "nothing that is known"),
        (b"PK\x03\x04", "ZIP archive"),
        (b"\x00\x01binary", "binary"),
        (b'{"a": ', "body"),
    ],
)
def test_file_that_is_not_recognised_is_refused_as_a_whole(api, body, says):
    found = problem(api.post(IMPORT, content=body), 422, "invalid")

    assert [error["code"] for error in found["errors"]] == ["file_refused"]


def test_unknown_options_and_encodings_are_refused(api):
    body = table(1, "never")
    for query, code in (
        ({"dryrun": "true"}, 422),
        ({"dry_run": "yes"}, 422),
        ({"domain": "absent.example"}, 422),
        ({"format": "nonsense"}, 422),
    ):
        assert api.post(IMPORT, content=body, params=query).status_code == code
    encoded = api.post(IMPORT, content=body, headers={"Content-Encoding": "gzip"})
    problem(encoded, 415, "encoded")
    chunked = api.post(IMPORT, content=iter([body]))
    problem(chunked, 411, "length_required")
    assert api.get(f"{LINKS}/never-0").status_code == 404


def test_body_that_ends_early_imports_nothing(gateway, api):
    body = table(9_000, "early")
    head = (
        f"POST {IMPORT} HTTP/1.1\r\nHost: hop.example\r\nAuthorization: Bearer {gateway.key}\r\n"
        f"Content-Length: {len(body) + 10}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(head.encode() + body)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):
            pass

    assert api.get(f"{LINKS}/early-0").status_code == 404


def test_client_that_leaves_ends_the_import_between_batches(gateway, api):
    body = table(20_000, "left")
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    connection.request("POST", IMPORT, body, {"Authorization": f"Bearer {gateway.key}"})
    answer = connection.getresponse()
    assert b"progress" in answer.readline()
    assert answer.fp is not None
    answer.close()
    connection.close()

    seen: list[int] = []

    def stored() -> bool:
        params = {"search": "left-", "count": "true", "limit": 1}
        seen.append(api.get(LINKS, params=params).json()["count"])
        return len(seen) > 3 and len(set(seen[-3:])) == 1

    eventually(stored, 60, "the import has ended", every=0.3)
    assert seen[-1] % BATCH == 0
    assert seen[-1] < 20_000
    assert summary(api.post(IMPORT, content=body, headers=CSV))["same"] == seen[-1]


def test_export_takes_the_filters_of_listings(api):
    api.post(
        IMPORT,
        content=b"slug,long_url,tags,max_visits,visits\nf-1,https://f.example/,one,9,4\nf-2,https://f.example/,two,,\n",
    )

    by_tag = [json.loads(one) for one in api.get(EXPORT, params={"tag": "one"}).text.splitlines()]
    by_host = api.get(EXPORT, params={"host": "f.example", "format": "csv"}).text.splitlines()

    assert [(one["slug"], one["spent_visits"], one["visits"]) for one in by_tag] == [("f-1", 4, 4)]
    assert [one.partition(",")[0] for one in by_host] == ["slug", "f-1", "f-2"]
    problem(api.get(EXPORT, params={"state": "open"}), 422, "invalid")
    problem(api.get(EXPORT, params={"format": "xml"}), 422, "invalid")
    head = api.head(EXPORT)
    assert (head.status_code, head.content) == (200, b"")
    assert api.get(EXPORT, params={"tag": "absent"}).text == ""


def test_export_waits_for_a_client_that_does_not_read(gateway, api):
    """What is not read is not fetched: the gateway's memory stays where it was."""
    api.post(IMPORT, content=table(10_000, "wide", f"{TARGET}{'x' * 1000}/"), headers=CSV)
    whole = api.get(EXPORT).content
    assert len(whole) > 10_000_000
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)) as connection:
        connection.request("GET", EXPORT, headers={"Authorization": f"Bearer {gateway.key}"})
        answer = connection.getresponse()

        first = answer.read(1000)
        others = [api.get("/healthz").status_code for _ in range(20)]

        assert first + answer.read() == whole
        assert others == [200] * 20


def test_scopes(gateway, settings):
    reading, writing = make_key(settings, "links:read"), make_key(settings, "links:write")
    for key, may_export in ((reading, True), (writing, False)):
        headers = {"Authorization": f"Bearer {key}"}
        exported = httpx.get(gateway.url + EXPORT, headers=headers, params={"tag": "none"})
        assert exported.status_code == (200 if may_export else 403)
        assert httpx.post(gateway.url + IMPORT, headers=headers, content=table(1, "x")).status_code == 403


@pytest.mark.parametrize("front", [ALONE, FRONT], ids=["alone", "front"])
def test_gateway_that_stops_says_so(front, tmp_path: Path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path / "data"), **front, **UNLIMITED}
    key = make_key(settings)
    with Gateway(settings, tmp_path) as gateway:
        headers = {"Authorization": f"Bearer {key}"}
        body = table(20_000, "stop")
        with httpx.stream("POST", gateway.url + IMPORT, headers=headers, content=body, timeout=60) as answer:
            told = answer.iter_lines()
            assert "progress" in next(told)
            assert gateway._process is not None
            gateway._process.terminate()
            try:
                ends = [json.loads(one) for one in told][-1]
            except httpx.RemoteProtocolError:
                ends = {"error": {"status": 503}}  # as plain as the words
        assert gateway._process.wait(30) == 0

    assert "summary" in ends or ends["error"]["status"] == 503
    with Gateway(settings, tmp_path) as gateway:
        again = httpx.post(gateway.url + IMPORT, headers=headers, content=body, timeout=60)
        done = summary(again)
        assert done["imported"] + done["same"] == 20_000
        assert done["same"] >= BATCH
