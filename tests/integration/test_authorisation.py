"""The matrix of operations and keys, made from the OpenAPI document: what each key may do, and no more."""

from __future__ import annotations

import re

import httpx
import pytest

from app.service.keys import Scope
from tests.integration.api_calls import problem
from tests.servers.hopgate import make_key

NO_KEY, WRONG_KEY = "no key", "wrong key"
# Each path parameter names nothing that is there.
NOWHERE = {"slug": "nothing-here", "host": "nothing.example", "key_id": "0" * 8, "value": "nothing.example"}


@pytest.fixture(scope="module")
def operations(embedded) -> list[tuple[str, str, str | None]]:
    """Method, path and scope of every operation that the document describes."""
    document = httpx.get(f"{embedded.url}/api/v1/openapi.json").json()
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            [requirement] = operation["security"]
            [scopes] = requirement.values()
            found.append((method.upper(), path, scopes[0] if scopes else None))
    assert len(found) > 20
    return found


@pytest.fixture(scope="module")
def keys(embedded) -> dict[str, str | None]:
    held = {scope.value: make_key(embedded.settings, scope.value) for scope in Scope}
    unknown = httpx.post(
        f"{embedded.url}/api/v1/keys",
        json={"name": "gone", "scopes": list(held)},
        headers={"Authorization": f"Bearer {held['admin']}"},
    ).json()
    revoked = httpx.delete(
        f"{embedded.url}/api/v1/keys/{unknown['key_id']}",
        headers={"Authorization": f"Bearer {held['admin']}"},
    )
    assert revoked.status_code == 204
    return {**held, NO_KEY: None, WRONG_KEY: unknown["key"]}


def asked(embedded, method: str, path: str, key: str | None) -> httpx.Response:
    """Send an empty body, which is refused after the key was looked at."""
    path = re.sub(r"{(\w+)}", lambda match: NOWHERE[match[1]], path)
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    body: dict[str, object] | None = (
        None if method in {"GET", "DELETE"} and not path.endswith("/bulk") else {}
    )
    base = "" if path.startswith("/api/") else "/api/v1"
    return httpx.request(method, f"{embedded.url}{base}{path}", headers=headers, json=body)


@pytest.mark.parametrize("holder", [*(scope.value for scope in Scope), NO_KEY, WRONG_KEY])
def test_every_operation_obeys_its_scope(embedded, operations, keys, holder):
    for method, path, scope in operations:
        answer = asked(embedded, method, path, keys[holder])
        cell = (method, path, scope, holder, answer.status_code)
        if holder in {NO_KEY, WRONG_KEY}:
            problem(answer, 401, "unauthorized")
        elif scope is None or holder in {scope, Scope.ADMIN}:
            assert answer.status_code not in {401, 403}, cell
            assert answer.status_code < 500, cell
        else:
            assert problem(answer, 403, "forbidden"), cell


def test_every_scope_is_needed_somewhere(operations):
    assert {scope for *_, scope in operations} == {*(scope.value for scope in Scope), None}
