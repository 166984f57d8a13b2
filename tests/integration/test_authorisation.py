"""The matrix of operations, keys and links, from the OpenAPI document: what each key may do, and no more."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from app.service.keys import Scope, granting
from tests.integration.api_calls import LINKS, problem
from tests.integration.domain_gateway import BASE, Serving, serving
from tests.servers.hopgate import make_key

NO_KEY, WRONG_KEY = "no key", "wrong key"
# Each path parameter names nothing that is there.
NOWHERE = {
    "slug": "nothing-here",
    "host": "nothing.example",
    "key_id": "0" * 8,
    "value": "nothing.example",
    "webhook_id": "wh_nothing",
}
# What a key may be restricted to, by the name of the kind: its own links, links of the default domain.
KINDS: dict[str, dict[str, object]] = {
    "any": {},
    "own": {"own_links": True},
    "domain": {"domains": [BASE]},
    "own of domain": {"own_links": True, "domains": [BASE]},
}
TARGETS = ("own link", "another's link", "other domain")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    directory: Path = tmp_path_factory.mktemp("authorisation")
    yield from serving({"HOPGATE_FRONT": "off"}, directory)


@pytest.fixture(scope="module")
def operations(gateway) -> list[tuple[str, str, str | None]]:
    """Method, path and scope of every operation that the document describes."""
    document = gateway.api.get("/api/v1/openapi.json").json()
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            [requirement] = operation["security"]
            [scopes] = requirement.values()
            found.append((method.upper(), path, scopes[0] if scopes else None))
    assert len(found) > 20
    return found


@pytest.fixture(scope="module")
def keys(gateway) -> dict[str, str | None]:
    held = {scope.value: make_key(gateway.settings, scope.value) for scope in Scope}
    unknown = gateway.api.post("/api/v1/keys", json={"name": "gone", "scopes": list(held)}).json()
    assert gateway.api.delete(f"/api/v1/keys/{unknown['key_id']}").status_code == 204
    return {**held, NO_KEY: None, WRONG_KEY: unknown["key"]}


def asked(gateway, method: str, path: str, key: str | None) -> httpx.Response:
    """Send an empty body, which is refused after the key was looked at."""
    path = re.sub(r"{(\w+)}", lambda match: NOWHERE[match[1]], path)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    body: dict[str, object] | None = (
        None if method in {"GET", "DELETE"} and not path.endswith("/bulk") else {}
    )
    base = "" if path.startswith("/api/") else "/api/v1"
    url = f"{gateway.url}{base}{path}"
    if path.endswith("/events"):
        headers["Last-Event-ID"] = "refused: a stream has no end"
    return httpx.request(method, url, headers=headers, json=body)


@pytest.mark.parametrize("holder", [*(scope.value for scope in Scope), NO_KEY, WRONG_KEY])
def test_every_operation_obeys_its_scope(gateway, operations, keys, holder):
    for method, path, scope in operations:
        answer = asked(gateway, method, path, keys[holder])
        cell = (method, path, scope, holder, answer.status_code)
        if holder in {NO_KEY, WRONG_KEY}:
            problem(answer, 401, "unauthorized")
        elif scope is None or holder in granting(Scope(scope)):
            assert answer.status_code not in {401, 403}, cell
            assert answer.status_code < 500, cell
        else:
            assert problem(answer, 403, "forbidden"), cell


def test_every_scope_is_needed_somewhere(operations):
    assert {scope for *_, scope in operations} == {*(scope.value for scope in Scope), None}


# --- operation × key × link --------------------------------------------------------------


@dataclass
class Cell:
    """A key, a link, and whether the key reaches it and may read links."""

    client: httpx.Client
    link: dict
    tag: str
    reached: bool
    in_domain: bool
    may_read: bool
    where: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.where = {"domain": self.link["domain"]}

    def one(self, method: str, rest: str = "", **options: object) -> httpx.Response:
        path = f"{LINKS}/{self.link['slug']}{rest}"
        return self.client.request(method, path, params=self.where, **options)  # type: ignore[arg-type]

    def sees_nothing(self, answer: httpx.Response) -> None:
        text = answer.text.replace(self.link["slug"], "").replace(self.link["external_id"], "")
        assert "secret" not in text


def of_one(method: str, rest: str = "", **options: object) -> Callable[[Cell], None]:
    """Return the check of an operation on one link: 404 beyond the reach, whatever the link is."""

    def check(cell: Cell) -> None:
        answer = cell.one(method, rest, **options)
        if cell.reached:
            assert answer.status_code in {200, 204}, answer.text
        else:
            problem(answer, 404, "not_found")
            cell.sees_nothing(answer)

    return check


def list_links(cell: Cell) -> None:
    answer = cell.client.get(LINKS, params={"long_url": cell.link["long_url"], "count": "true"}).json()
    assert [one["slug"] for one in answer["links"]] == [cell.link["slug"]] * cell.reached
    assert answer["count"] == cell.reached
    searched = cell.client.get(LINKS, params={"search": cell.link["slug"], **cell.where}).json()
    assert len(searched["links"]) == cell.reached


def create_link(cell: Cell) -> None:
    body = {"long_url": "https://example.com/", "slug": cell.link["slug"], **cell.where}
    _conflict(cell, cell.client.post(LINKS, json=body))


def create_links(cell: Cell) -> None:
    item = {"long_url": "https://example.com/", "slug": cell.link["slug"], **cell.where}
    [result] = cell.client.post(f"{LINKS}/bulk", json={"links": [item]}).json()["results"]
    _conflict(cell, httpx.Response(result["status"], json=result["error"]))
    by_id = {"long_url": "https://example.com/new", "external_id": cell.link["external_id"], **cell.where}
    upserted = cell.client.post(f"{LINKS}/bulk", json={"links": [by_id], "upsert": "external_id"})
    if not cell.may_read:
        problem(upserted, 403, "forbidden")
        return
    [result] = upserted.json()["results"]
    expected = 200 if cell.reached else 409 if cell.in_domain else 422
    assert result["status"] == expected, result
    if not cell.reached:
        cell.sees_nothing(upserted)


def _conflict(cell: Cell, answer: httpx.Response) -> None:
    document = answer.json()
    if not cell.in_domain:
        assert (answer.status_code, document["errors"][0]["code"]) == (422, "domain_forbidden")
        return
    assert (answer.status_code, document["code"]) == (409, "slug_taken")
    assert ("link" in document) == (cell.reached and cell.may_read)
    if not (cell.reached and cell.may_read):
        cell.sees_nothing(answer)


def change_links(cell: Cell) -> None:
    item = {"slug": cell.link["slug"], "title": "changed", **cell.where}
    _result(cell, cell.client.patch(f"{LINKS}/bulk", json={"links": [item]}))


def remove_links(cell: Cell) -> None:
    item = {"slug": cell.link["slug"], **cell.where}
    _result(cell, cell.client.request("DELETE", f"{LINKS}/bulk", json={"links": [item]}))


def _result(cell: Cell, answer: httpx.Response) -> None:
    [result] = answer.json()["results"]
    assert result["status"] in ({200, 204} if cell.reached else {404}), result
    if not cell.reached:
        cell.sees_nothing(answer)


def export(cell: Cell) -> None:
    answer = cell.client.get("/api/v1/export", params={"long_url": cell.link["long_url"]})
    assert [json.loads(line)["slug"] for line in answer.text.splitlines()] == (
        [cell.link["slug"]] * cell.reached
    )


def invalidate(cell: Cell) -> None:
    answer = cell.client.post("/api/v1/cache/invalidate", json={"slugs": [cell.link["slug"]], **cell.where})
    unknown = [] if cell.reached else [cell.link["slug"]]
    assert answer.json() == {"invalidated": int(cell.reached), "unknown": unknown}


def list_tags(cell: Cell) -> None:
    # The newest tag is the first one.
    found = cell.client.get("/api/v1/tags", params={"limit": 1}).json()["tags"]
    assert ({"tag": cell.tag, "links": 1} in found) == cell.reached


def change_tag(cell: Cell) -> None:
    answer = cell.client.patch("/api/v1/tags", params={"tag": cell.tag}, json={"name": "other"})
    assert answer.json() == {"changed": int(cell.reached), "done": True}


def remove_tag(cell: Cell) -> None:
    answer = cell.client.delete("/api/v1/tags", params={"tag": cell.tag})
    assert answer.json() == {"changed": int(cell.reached), "done": True}


def list_domains(cell: Cell) -> None:
    hosts = [one["host"] for one in cell.client.get("/api/v1/domains").json()["domains"]]
    assert (cell.link["domain"] in hosts) == cell.in_domain


def get_domain(cell: Cell) -> None:
    answer = cell.client.get(f"/api/v1/domains/{cell.link['domain']}")
    assert answer.status_code == (200 if cell.in_domain else 404)


def add_alias(cell: Cell) -> None:
    name = f"alias-{next(_numbers)}"
    answer = cell.one("POST", "/aliases", json={"slug": name})
    _addressed(cell, answer)
    # Under an alias, a link is what it is under its slug.
    by_alias = cell.client.patch(f"{LINKS}/{name}", params=cell.where, json={"title": "changed"})
    problem(by_alias, *((409, "is_alias") if cell.reached else (404, "not_found")))
    if not cell.reached:
        cell.sees_nothing(by_alias)


def rename(cell: Cell) -> None:
    _addressed(cell, cell.one("POST", "/rename", json={"slug": f"renamed-{next(_numbers)}"}))


def remove_alias(cell: Cell) -> None:
    answer = cell.client.delete(
        f"{LINKS}/{cell.link['slug']}/aliases", params={**cell.where, "alias": "nothing-here"}
    )
    problem(answer, 404, "alias_not_found" if cell.reached else "not_found")
    cell.sees_nothing(answer)


def _addressed(cell: Cell, answer: httpx.Response) -> None:
    if cell.reached:
        assert answer.status_code == (200 if cell.may_read else 204), answer.text
        return
    if cell.in_domain:
        problem(answer, 404, "not_found")
    else:
        assert problem(answer, 422, "invalid")["errors"][0]["code"] == "domain_forbidden"
    cell.sees_nothing(answer)


OF_LINKS: dict[tuple[str, str], Callable[[Cell], None]] = {
    ("GET", "/api/v1/links"): list_links,
    ("POST", "/api/v1/links"): create_link,
    ("POST", "/api/v1/links/bulk"): create_links,
    ("PATCH", "/api/v1/links/bulk"): change_links,
    ("DELETE", "/api/v1/links/bulk"): remove_links,
    ("GET", "/api/v1/links/{slug}"): of_one("GET"),
    ("PATCH", "/api/v1/links/{slug}"): of_one("PATCH", json={"title": "changed"}),
    ("DELETE", "/api/v1/links/{slug}"): of_one("DELETE"),
    ("GET", "/api/v1/links/{slug}/stats"): of_one("GET", "/stats"),
    ("GET", "/api/v1/links/{slug}/history"): of_one("GET", "/history"),
    ("POST", "/api/v1/links/{slug}/undo"): of_one("POST", "/undo"),
    ("GET", "/api/v1/links/{slug}/qr"): of_one("GET", "/qr"),
    ("GET", "/api/v1/export"): export,
    ("POST", "/api/v1/links/{slug}/aliases"): add_alias,
    ("DELETE", "/api/v1/links/{slug}/aliases"): remove_alias,
    ("POST", "/api/v1/links/{slug}/rename"): rename,
    ("POST", "/api/v1/cache/invalidate"): invalidate,
    ("GET", "/api/v1/tags"): list_tags,
    ("PATCH", "/api/v1/tags"): change_tag,
    ("DELETE", "/api/v1/tags"): remove_tag,
    ("GET", "/api/v1/domains"): list_domains,
    ("GET", "/api/v1/domains/{host}"): get_domain,
}
# The rest of what is not for admins alone: any key may ask what it is. A stream has no end, and what is of
# all links is not for restricted keys: tests/integration/test_key_restrictions.py.
OF_NO_LINK = {("GET", "/api/v1/me"), ("GET", "/api/v1/events"), ("GET", "/api/v1/stats")}


def holders() -> list[tuple[str, str]]:
    """Return each scope with each kind of restriction that it may have."""
    return [
        (scope.value, kind) for scope in Scope for kind in KINDS if kind == "any" or scope is not Scope.ADMIN
    ]


@pytest.fixture(scope="module")
def made(gateway) -> Callable[..., dict]:
    """Makes keys, each once."""
    known: dict[tuple[str, str], dict] = {}

    def make(scope: str, kind: str) -> dict:
        if (scope, kind) not in known:
            body = {"name": f"{scope} {kind}", "scopes": [scope], **KINDS[kind]}
            answer = gateway.api.post("/api/v1/keys", json=body)
            assert answer.status_code == 201, answer.text
            known[scope, kind] = answer.json()
        return known[scope, kind]

    return make


@pytest.fixture(scope="module")
def elsewhere(gateway) -> str:
    return gateway.domain()


def of(gateway: Serving, target: str, key: dict, other: dict, elsewhere: str) -> tuple[dict, str]:
    """Make a link that was changed once, and handed over; return it and its tag."""
    number = next(_numbers)
    tag = f"!{10**9 - number:010}"
    host = elsewhere if target == "other domain" else None
    fields = {"external_id": f"secret {number}", "title": "secret title", "tags": [tag]}
    link = gateway.link(host, slug=f"secret-{number}-slug", **fields)
    owner = other if target == "another's link" else key
    answer = gateway.api.patch(
        f"{LINKS}/{link['slug']}",
        params={"domain": link["domain"]},
        json={"owner": owner["key_id"], "redirect_code": 301},
    )
    assert answer.json()["owner"] == owner["key_id"]
    return answer.json(), tag


def test_every_operation_of_links_has_its_row(operations):
    others = {(method, path) for method, path, scope in operations if scope != Scope.ADMIN}

    assert others == {*OF_LINKS, *OF_NO_LINK}


@pytest.mark.parametrize(("scope", "kind"), holders())
def test_every_operation_obeys_the_restrictions_of_its_key(gateway, operations, made, elsewhere, scope, kind):
    key, other = made(scope, kind), made("links:read", "any")
    needed = {(method, path): needs for method, path, needs in operations}
    with httpx.Client(base_url=gateway.url, headers={"Authorization": f"Bearer {key['key']}"}) as client:
        for (operation, check), target in itertools.product(OF_LINKS.items(), TARGETS):
            if scope not in granting(Scope(needed[operation])):
                continue  # 403: see the matrix above
            link, tag = of(gateway, target, key, other, elsewhere)
            is_own, in_domain = target != "another's link", target != "other domain"
            cell = Cell(
                client,
                link,
                tag,
                reached=("own" not in kind or is_own) and ("domain" not in kind or in_domain),
                in_domain="domain" not in kind or in_domain,
                may_read=scope in granting(Scope.LINKS_READ),
            )
            try:
                check(cell)
            except AssertionError as error:
                raise AssertionError(f"{operation} of {scope} ({kind}) with {target}: {error}") from error
