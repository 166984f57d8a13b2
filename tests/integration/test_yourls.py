"""The API of YOURLS, by its clients as they are published and by hand."""

from __future__ import annotations

import secrets
from xml.etree import ElementTree as ET

import httpx
import pytest

from tests.integration.dialect_gateway import (
    BASE,
    needs_node,
    needs_python_clients,
    node,
    python,
    speaking,
    target,
)

YOURLS = "/yourls-api.php"


@pytest.fixture(scope="module", params=["on", "off"], ids=["front", "no front"])
def gateway(request, tmp_path_factory):
    yield from speaking(tmp_path_factory.mktemp("yourls"), HOPGATE_FRONT=request.param)


def word() -> str:
    return f"w{secrets.token_hex(6)}"


def asked(gateway, method="GET", key=None, **parameters):
    shown = {"format": "json", "signature": key or gateway.key, **parameters}
    url = f"{gateway.url}{YOURLS}"
    return httpx.get(url, params=shown) if method == "GET" else httpx.post(url, data=shown)


# --- clients ----------------------------------------------------------------------------

OF_YOURLS = """
import json, sys
from yourls import YOURLSClient, YOURLSHTTPError, YOURLSNoURLError
url, signature, target, keyword = sys.argv[1:]
yourls = YOURLSClient(url, signature=signature)
made = yourls.shorten(target, keyword=keyword, title="Example")
failed = []
calls = [(yourls.shorten, target), (yourls.expand, "nothing-here"), (yourls.shorten, "")]
for call, argument in calls:
    try:
        call(argument)
    except (YOURLSHTTPError, YOURLSNoURLError) as error:
        failed.append(type(error).__name__)
links, stats = yourls.stats(filter="last", limit=1)
print(json.dumps({
    "made": [made.shorturl, made.url, made.title, made.keyword, made.clicks],
    "expanded": yourls.expand(made.shorturl),
    "counted": [yourls.url_stats(keyword).url, yourls.url_stats(made.shorturl).clicks],
    "last": links[0].shorturl,
    "totals": [stats.total_links, yourls.db_stats().total_links],
    "failed": failed,
}))
"""


@needs_python_clients
def test_yourls_of_pypi(gateway):
    url, keyword = target(), word()

    found = python(OF_YOURLS, f"{gateway.url}{YOURLS}", gateway.key, url, keyword)

    assert found["made"] == [f"{BASE}/{keyword}", url, "Example", keyword, 0]
    assert found["expanded"] == url
    assert found["counted"] == [url, 0]
    assert found["last"] == f"{BASE}/{keyword}"
    assert found["totals"][0] == found["totals"][1] > 0
    # Since YOURLS answers 400 to a URL that is there already, the client has no better name for it.
    assert found["failed"] == ["YOURLSHTTPError", "YOURLSHTTPError", "YOURLSNoURLError"]


OF_PYOURLS3 = """
import json, sys
import pyourls3
address, key, target, keyword = sys.argv[1:]
yourls = pyourls3.Yourls(address, user="anyone", passwd=key)
made = yourls.shorten(target, keyword=keyword, title="Example")
try:
    yourls.shorten(target)
except pyourls3.exceptions.Pyourls3URLAlreadyExistsError as error:
    exists = error.url
try:
    yourls.shorten("https://example.com/another" + keyword, keyword=keyword)
except pyourls3.exceptions.Pyourls3APIError as error:
    taken = error.code
try:
    pyourls3.Yourls(address, key="wrong")
except pyourls3.exceptions.Pyourls3APIError as error:
    forbidden = error.code
print(json.dumps({
    "made": made, "exists": exists, "taken": taken, "forbidden": forbidden,
    "expanded": yourls.expand(keyword), "counted": yourls.url_stats(keyword), "stats": yourls.stats(),
}))
"""


@needs_python_clients
def test_pyourls3_of_pypi(gateway):
    url, keyword = target(), word()

    found = python(OF_PYOURLS3, gateway.url, gateway.key, url, keyword)

    assert found["made"]["status"] == "success"
    assert found["made"]["shorturl"] == f"{BASE}/{keyword}"
    assert (found["exists"], found["taken"], found["forbidden"]) == (url, "error:keyword", 403)
    assert found["expanded"] == url
    assert found["counted"]["url"] == url
    assert int(found["stats"]["total_links"]) > 0


@needs_node
@pytest.mark.parametrize(("shape", "method"), [("json", "GET"), ("json", "POST"), ("jsonp", "GET")])
def test_yourls_api_of_npm(gateway, shape, method):
    url, keyword = target(), word()

    found = node("yourls.mjs", f"{gateway.url}{YOURLS}", gateway.key, shape, method, url, keyword)

    made = found["made"]["result"]
    assert made["shorturl"] == f"{BASE}/{keyword}"
    assert made["title"] == "Spring </script> sale"
    assert (made["url"]["keyword"], made["url"]["url"]) == (keyword, url)
    assert found["again"]["response"]["code"] == "error:url"
    assert found["again"]["result"]["shorturl"] == f"{BASE}/{keyword}"
    assert found["expanded"]["result"] == {
        "keyword": keyword,
        "longurl": url,
        "shorturl": f"{BASE}/{keyword}",
    }
    assert found["counted"]["result"]["clicks"] == "0"
    assert found["listed"]["result"]["links"][0]["url"] == url
    assert int(found["all"]["result"]["total_links"]) > 0
    assert found["version"]["result"]["version"].startswith("1.")


# --- what each action answers ------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_link_of_each_method_redirects(gateway, method):
    url = target()

    made = asked(gateway, method, action="shorturl", url=url).json()

    assert made["statusCode"] == "200"
    path = made["shorturl"].removeprefix(BASE)
    visit = httpx.get(f"{gateway.url}{path}", headers={"Host": "hop.example"})
    assert (visit.status_code, visit.headers["location"]) == (302, url)


def test_simple_is_one_line(gateway):
    url, keyword = target(), word()

    made = asked(gateway, action="shorturl", url=url, keyword=keyword, format="simple")
    again = asked(gateway, action="shorturl", url=url, format="simple")
    expanded = asked(gateway, action="expand", shorturl=keyword, format="simple")

    assert made.headers["content-type"].startswith("text/plain")
    assert (made.status_code, made.text) == (200, f"{BASE}/{keyword}")
    assert (again.status_code, again.text) == (400, f"{BASE}/{keyword}")
    assert expanded.text == url


def test_xml_is_the_default_and_escaped(gateway):
    url, keyword = f"{target()}?a=1&b=2", word()

    made = httpx.get(
        f"{gateway.url}{YOURLS}",
        params={
            "signature": gateway.key,
            "action": "shorturl",
            "url": url,
            "keyword": keyword,
            "title": "<b> & ]]>",
        },
    )

    assert made.headers["content-type"].startswith("application/xml")
    root = ET.fromstring(made.text)
    assert root.tag == "result"
    assert root.findtext("url/url") == url
    assert root.findtext("title") == "<b> & ]]>"
    assert root.findtext("shorturl") == f"{BASE}/{keyword}"


@pytest.mark.parametrize("callback", ["", "alert(1)//", "a;b", "x" * 300, "a-b", "<script>", "a.b[c]"])
def test_jsonp_calls_a_function_and_nothing_else(gateway, callback):
    refused = asked(gateway, action="version", format="jsonp", callback=callback)
    called = asked(gateway, action="version", format="jsonp", callback="__a.$b[12]")

    assert (refused.status_code, refused.json()["errorCode"]) == (400, "400")
    assert called.text.startswith("/**/__a.$b[12]({")
    assert called.headers["content-type"].startswith("application/javascript")


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"url": ""}, "error:nourl"),
        ({"url": "not a url"}, "error:nourl"),
        ({"url": "javascript:alert(1)"}, "error:nourl"),
        ({"url": f"{BASE}/abc"}, "error:noloop"),
        ({"url": "https://example.com/", "keyword": "docs"}, "error:keyword"),
        ({"url": "https://example.com/", "keyword": "a/b"}, "error:keyword"),
        ({"url": "https://example.com/", "title": "x" * 3000}, "error:title"),
    ],
)
def test_broken_rule_has_the_code_of_yourls(gateway, parameters, code):
    before = asked(gateway, action="db-stats").json()["db-stats"]["total_links"]

    answer = asked(gateway, action="shorturl", **parameters)

    document = answer.json()
    assert (answer.status_code, document["status"], document["code"]) == (400, "fail", code)
    assert asked(gateway, action="db-stats").json()["db-stats"]["total_links"] == before


def test_limited_and_disabled_links_do_not_stand_for_a_new_one(gateway):
    url = target()
    gateway.link(long_url=url, max_visits=3)
    gateway.link(long_url=url, expires_in="7d")
    gateway.link(long_url=url, enabled=False)

    made = asked(gateway, action="shorturl", url=url)
    again = asked(gateway, action="shorturl", url=url)

    assert (made.status_code, again.status_code) == (200, 400)
    assert again.json()["shorturl"] == made.json()["shorturl"]


def test_stats_are_sorted_and_paged(gateway):
    made = [gateway.link()["short_url"] for _ in range(3)]

    both = asked(gateway, action="stats", filter="last", limit="2").json()
    third = asked(gateway, action="stats", filter="last", limit="1", start="2").json()

    assert [both["links"][f"link_{n}"]["shorturl"] for n in (1, 2)] == [made[2], made[1]]
    assert third["links"]["link_1"]["shorturl"] == made[0]
    for wrong in ({"filter": "rand", "limit": "1"}, {"limit": "-1"}, {"limit": "1001"}, {"limit": "x"}):
        answer = asked(gateway, action="stats", **wrong)
        assert answer.status_code in {400, 422}, wrong
        assert answer.json()["errorCode"] == str(answer.status_code)


def test_deep_places_are_refused(gateway):
    answer = asked(gateway, action="stats", filter="last", limit="10", start="999999")

    assert answer.status_code == 422
    assert "/api/v1/links" in answer.json()["message"]


# --- keys -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "wrong", "hg_aaaaaaaa_" + "b" * 43 + "_cccccc"])
def test_wrong_key_is_403_as_in_yourls(gateway, key):
    answer = httpx.get(
        f"{gateway.url}{YOURLS}", params={"format": "json", "action": "version", "signature": key}
    )

    assert (answer.status_code, answer.json()["errorCode"]) == (403, "403")


def test_key_is_taken_from_the_password_and_not_from_elsewhere(gateway):
    by_password = asked(gateway, "POST", signature="", username="any", password=gateway.key, action="version")
    by_header = httpx.get(
        f"{gateway.url}{YOURLS}",
        params={"format": "json", "action": "version"},
        headers={"Authorization": f"Bearer {gateway.key}"},
    )

    assert by_password.status_code == 200
    assert by_header.status_code == 403


def test_hashed_signature_is_refused_with_the_reason(gateway):
    answer = asked(gateway, action="version", timestamp="1477947900", signature="0" * 32, hash="sha512")

    assert answer.status_code == 403
    assert "hashes" in answer.json()["message"]


def test_scopes_hold(gateway):
    url = target()

    refused = asked(gateway, action="shorturl", url=url, key=gateway.reader)
    made = asked(gateway, action="shorturl", url=url, key=gateway.writer)
    # It may not learn what is there, so it makes another.
    another = asked(gateway, action="shorturl", url=url, key=gateway.writer)
    hidden = asked(gateway, action="expand", shorturl=made.json()["url"]["keyword"], key=gateway.writer)

    assert (refused.status_code, made.status_code, another.status_code) == (403, 200, 200)
    assert made.json()["shorturl"] != another.json()["shorturl"]
    assert (hidden.status_code, "longurl" in hidden.json()) == (403, False)


# --- requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", b'{"action": "version"}'),
        ("multipart/form-data; boundary=x", b"--x--"),
        ("application/x-www-form-urlencoded", b"action=version&a=%FF"),
        ("application/x-www-form-urlencoded", b"\xff\xfe"),
        ("application/x-www-form-urlencoded", b"&".join(b"a%d=1" % n for n in range(200))),
    ],
)
def test_unreadable_form_is_refused_in_the_shape_of_yourls(gateway, content_type, body):
    answer = httpx.post(f"{gateway.url}{YOURLS}", content=body, headers={"content-type": content_type})

    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "400"


def test_large_form_is_refused_in_the_shape_of_yourls(gateway):
    answer = httpx.post(f"{gateway.url}{YOURLS}", data={"action": "x" * 70_000})

    assert (answer.status_code, answer.json()["errorCode"]) == (413, "413")


@pytest.mark.parametrize("parameters", [{}, {"action": "delete"}, {"action": "SHORTURL"}])
def test_unknown_action(gateway, parameters):
    answer = asked(gateway, **parameters)

    assert answer.status_code == 400
    assert "action" in answer.json()["message"]


def test_unknown_format_and_head_are_refused(gateway):
    unknown = asked(gateway, action="version", format="yaml")
    url = target()
    head = httpx.head(
        f"{gateway.url}{YOURLS}", params={"signature": gateway.key, "action": "shorturl", "url": url}
    )

    assert (unknown.status_code, head.status_code) == (400, 405)
    assert gateway.api.get("/api/v1/links", params={"long_url": url}).json()["links"] == []


def test_unknown_parameters_are_ignored_as_yourls_does(gateway):
    assert asked(gateway, action="version", source="plugin", _="123").status_code == 200


def test_repeated_request_with_an_idempotency_key_makes_one_link(gateway):
    url, name = target(), secrets.token_hex(8)

    def sent(title: str) -> httpx.Response:
        form = {"signature": gateway.key, "format": "json", "action": "shorturl", "url": url, "title": title}
        return httpx.post(f"{gateway.url}{YOURLS}", data=form, headers={"Idempotency-Key": name})

    first, second, other = sent("a"), sent("a"), sent("b")

    assert (first.status_code, second.status_code, other.status_code) == (200, 200, 422)
    assert first.json()["shorturl"] == second.json()["shorturl"]


def test_key_in_the_url_reaches_no_log(tmp_path):
    for number, front in enumerate(("on", "off")):
        directory = tmp_path / str(number)
        directory.mkdir()
        for gateway in speaking(directory, HOPGATE_FRONT=front, HOPGATE_ACCESS_LOG="on"):
            assert asked(gateway, action="version").status_code == 200
            assert asked(gateway, action="nothing").status_code == 400
            httpx.get(f"{gateway.url}/nothing-here", params={"signature": gateway.key})
            assert gateway.stop() == 0
            assert YOURLS in gateway.output
            assert gateway.key.split("_")[1] not in gateway.output


def test_limits_hold(tmp_path):
    for gateway in speaking(tmp_path, HOPGATE_LIMIT_CREATE="60/min burst 2"):
        answers = [asked(gateway, action="shorturl", url=target()) for _ in range(3)]

        assert [one.status_code for one in answers] == [200, 200, 429]
        assert answers[2].json()["errorCode"] == "429"
        assert int(answers[2].headers["retry-after"]) >= 1


def test_dialect_is_off_unless_it_is_asked_for(embedded):
    answer = httpx.get(f"{embedded.url}{YOURLS}", params={"action": "version"})

    assert answer.status_code == 404
