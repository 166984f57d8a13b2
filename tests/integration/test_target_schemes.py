"""Links to mails, calls and apps, on gateways whose operator allows them."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator

import httpx
import pytest

from tests.integration.front_gateway import ALONE, FRONT, get
from tests.servers.hopgate import UNLIMITED, Gateway, hopgate, make_key

LINKS = "/api/v1/links"
SCHEMES = "http https mailto tel myapp"
MAIL = "mailto:a@example.com?subject=one%20two&body=x%0D%0Ay"
TARGETS = (MAIL, "tel:+1-201-555-0123;ext=5", "myapp://open/page?id=1#top")


class Allowing(Gateway):
    """A gateway, its settings and a client with every scope."""

    api: httpx.Client
    settings: dict[str, str]


@pytest.fixture(scope="module", params=[ALONE, FRONT], ids=["alone", "front"])
def gateway(request, tmp_path_factory) -> Iterator[Allowing]:
    directory = tmp_path_factory.mktemp("schemes")
    settings = {
        "HOPGATE_DATA_DIR": str(directory / "data"),
        "HOPGATE_BASE_URL": "http://hop.example",
        "HOPGATE_TARGET_SCHEMES": SCHEMES,
        **request.param,
        **UNLIMITED,
    }
    key = make_key(settings)
    with (
        Allowing(settings, directory) as gateway,
        httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key}"}) as client,
    ):
        gateway.api, gateway.settings = client, settings
        yield gateway


def location(gateway: Allowing, slug: str, query: str = "") -> str:
    # httpx refuses a Location that has no host.
    answers = [get(gateway, f"/{slug}{query}") for _ in range(3)]
    assert [answer.status for answer in answers] == [302] * 3
    [found] = {answer.header("location") for answer in answers}
    return found or ""


@pytest.mark.parametrize("target", TARGETS)
def test_redirect_to_an_app_is_byte_exact(gateway, target):
    scheme, colon, rest = target.partition(":")

    link = gateway.api.post(LINKS, json={"long_url": f"{scheme.upper()}{colon}{rest}"}).json()

    assert link["long_url"] == target
    assert location(gateway, link["slug"]) == target
    # Nothing of the visitor's goes into a mail.
    assert location(gateway, link["slug"], "?body=z") == target


def test_rules_hold_on_every_way_in(gateway, tmp_path):
    slug = f"s{secrets.token_hex(6)}"
    made = hopgate(gateway.settings, "links", "create", MAIL, "--slug", slug)
    assert made.returncode == 0, made.stderr
    assert location(gateway, slug) == MAIL
    bad = "mailto:a@example.com?attach=/etc/passwd"
    file = tmp_path / "links.csv"
    file.write_text(f"slug,long_url\nok{slug},{TARGETS[1]}\nbad{slug},{bad}\njs{slug},javascript:alert(1)\n")

    created = gateway.api.post(LINKS, json={"long_url": bad})
    changed = gateway.api.patch(f"{LINKS}/{slug}", json={"long_url": bad})
    forwarded = gateway.api.patch(f"{LINKS}/{slug}", json={"forward_query": True})
    by_command = hopgate(gateway.settings, "links", "edit", slug, "--long-url", bad)
    imported = hopgate(gateway.settings, "links", "import", str(file), "--json")

    for answer, code in ((created, "url_mail"), (changed, "url_mail"), (forwarded, "forward_query_scheme")):
        assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)
    assert by_command.returncode == 1
    assert "has the field 'attach'" in by_command.stderr
    report = json.loads(imported.stdout)
    assert (report["imported"], report["refused"]) == (1, 2)
    assert location(gateway, f"ok{slug}") == TARGETS[1]


def test_list_of_targets_is_imported(gateway, tmp_path):
    file = tmp_path / "urls.txt"
    targets = ["https://example.com/", *TARGETS]
    file.write_text("\n".join(targets))

    done = hopgate(gateway.settings, "links", "import", str(file), "--format", "urls", "--json")

    report = json.loads(done.stdout)
    assert (report["imported"] + report["same"], report["refused"]) == (4, 0), report


def test_export_is_imported_again(gateway, tmp_path):
    gateway.api.post(LINKS, json={"long_url": MAIL})
    for form in ("csv", "jsonl"):
        file = tmp_path / f"links.{form}"
        exported = hopgate(gateway.settings, "links", "export", "--format", form, "--output", str(file))
        assert exported.returncode == 0, exported.stderr

        done = hopgate(gateway.settings, "links", "import", str(file), "--json")

        report = json.loads(done.stdout)
        assert (report["imported"], report["refused"]) == (0, 0), report


def test_document_has_the_schemes(gateway):
    schema = gateway.api.get("/api/v1/openapi.json").json()["components"]["schemas"]["CreateLink"]
    pattern = schema["properties"]["long_url"]["pattern"]

    assert re.search(pattern, "mailto:a@example.com")
    assert re.search(pattern, "https://example.com/")
    assert not re.search(pattern, "javascript:alert(1)")


def test_link_of_a_scheme_that_is_gone_answers_451(gateway, tmp_path):
    """And redirects again, once it is back: nothing was changed in the store."""
    link = gateway.api.post(LINKS, json={"long_url": MAIL}).json()
    web = gateway.api.post(LINKS, json={"long_url": "https://example.com/"}).json()
    gateway.stop()
    with Allowing({**gateway.settings, "HOPGATE_TARGET_SCHEMES": "http https"}, tmp_path) as narrow:
        answers = [httpx.get(f"{narrow.url}/{link['slug']}") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [451] * 3
        assert httpx.get(f"{narrow.url}/{web['slug']}").status_code == 302
        headers = gateway.api.headers
        edited = httpx.patch(f"{narrow.url}{LINKS}/{link['slug']}", headers=headers, json={"title": "kept"})
        assert edited.status_code == 200
    gateway.start()

    assert location(gateway, link["slug"]) == MAIL


def test_dangerous_scheme_stops_the_start(tmp_path):
    settings = {"HOPGATE_DATA_DIR": str(tmp_path), "HOPGATE_TARGET_SCHEMES": "https javascript"}

    for arguments in (("serve",), ("doctor",), ("links", "create", "javascript:alert(1)")):
        done = hopgate(settings, *arguments)
        assert done.returncode == 1
        [line] = done.stderr.splitlines()
        assert line.startswith("hopgate: HOPGATE_TARGET_SCHEMES: javascript cannot be allowed: ")


@pytest.mark.parametrize("scheme", ["mailto", "myapp"])
def test_blocked_host_of_an_app_link(gateway, scheme):
    host = f"h{secrets.token_hex(6)}.example"
    target = f"mailto:a@www.{host}" if scheme == "mailto" else f"myapp://www.{host}/x"
    link = gateway.api.post(LINKS, json={"long_url": target}).json()
    assert location(gateway, link["slug"]) == target

    gateway.api.post("/api/v1/blocks", json={"hosts": [host]})

    assert gateway.api.get(f"/{link['slug']}").status_code == 451
    assert (
        gateway.api.post(LINKS, json={"long_url": target}).json()["errors"][0]["code"] == "url_blocked_host"
    )
