"""
Changes requests of schemathesis so that they keep the rules that no JSON Schema can say.

Those rules have tests of their own: `valid_from` comes before `expires_at`, which lies in the future of a new
link; `since` comes before `until` by at most 31 days; an Idempotency-Key belongs to one body; a cursor
belongs to its listing, whose ranges begin before they end, and whose tags do not contradict each other; a
domain is one that is served.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import schemathesis

HOUR, MONTH = timedelta(hours=1), timedelta(days=30)
FUTURE, LAST = datetime(2100, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)
FORM = "%Y-%m-%dT%H:%M:%SZ"
MOST_SLOW = 5
SLOW: list[str] = []


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Leave out the greatest length of a target: the search for a URL so long takes minutes."""
    for name in ("CreateLink", "PatchLink"):
        del raw_schema["components"]["schemas"][name]["properties"]["long_url"]["maxLength"]


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Change a request that is to be accepted; one that is to be refused stays as it is."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if isinstance(case.body, dict):
        case.body = in_order(case.body, is_change=case.method == "PATCH")
        case.body = within_rules(case.body, case.path)
        # No domain is served at a host that was made up, and only so many are.
        case.body.pop("domain", None)
        if case.path == "/domains":
            case.body["host"] = f"h{len(str(case.body['host'])) % 50}.example"
    if case.path.endswith("/stats") and "since" in case.query:
        case.query = {**case.query, **in_range(case.query["since"], case.query.get("until"))}
    if case.path == "/links/bulk":
        # The options of a body belong in it.
        case.query = {}
    if case.path in {"/links", "/tags"} and case.method == "GET":
        case.query = consistent(case.query)
    if case.path.endswith("/history"):
        case.query = {name: value for name, value in case.query.items() if name != "cursor"}
    key = case.headers.get("Idempotency-Key")
    if key is not None:
        # Equal bodies keep equal keys, so that answers are also replayed.
        digest = hashlib.sha256(repr(case.body).encode(errors="surrogatepass")).hexdigest()
        case.headers["Idempotency-Key"] = f"{key[:128]}-{digest}"


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Any, case: schemathesis.Case, response: schemathesis.Response
) -> bool:
    """Let a few requests miss their deadline: other tests use the disk and the processors, too."""
    if response.status_code == 503 and "took too long" in response.text:
        SLOW.append(case.path)
    else:
        return True
    return len(SLOW) > MOST_SLOW


def in_order(body: dict[str, Any], *, is_change: bool) -> dict[str, Any]:
    """Return *body* with `valid_from` before `expires_at`; what a change leaves out depends on the link."""
    named = {name: body[name] for name in ("valid_from", "expires_at") if name in body}
    if is_change and len(named) == 1:
        return {"valid_from": None, "expires_at": None, **body}
    times = sorted((value for value in named.values() if value is not None), key=datetime.fromisoformat)
    if named.get("expires_at") is None or not times:
        return body
    *first, last = times
    if datetime.fromisoformat(last) < FUTURE and not is_change:
        last = f"{LAST:{FORM}}"
    is_empty = first and datetime.fromisoformat(first[0]) == datetime.fromisoformat(last)
    valid_from = first[0] if first and not is_empty else None
    return {**body, "expires_at": last, **({"valid_from": valid_from} if "valid_from" in body else {})}


def within_rules(body: dict[str, Any], path: str) -> dict[str, Any]:
    """Return *body* without a second expiry, a time beyond all, a tag's own name, or no block at all."""
    if body.get("expires_at") is not None:
        body = {name: value for name, value in body.items() if name != "expires_in"}
    if path.endswith("/rotate"):
        return {**body, "grace": "1h"}
    if path == "/tags":
        return {**body, "name": f"{str(body['name'])[:60]}-new"}
    if path == "/blocks" and not body.get("hosts") and not body.get("slugs"):
        return {"hosts": ["evil.example"]}
    return body


def consistent(query: dict[str, Any]) -> dict[str, Any]:
    """Return a query of a listing without a cursor, contradictory tags and empty ranges."""
    left_out = {"cursor", "tags_none", "domain"} | {name for name in query if name.endswith("_until")}
    return {name: value for name, value in query.items() if name not in left_out}


def in_range(since: str, until: str | None) -> dict[str, str]:
    """Return a range of at most 31 days that begins or ends as asked for; *since* alone: of one hour."""
    first, last = sorted(datetime.fromisoformat(text).astimezone(UTC) for text in (since, until or since))
    first = max(first, last - MONTH)
    if first == last:
        last = min(last + HOUR, LAST)
    return {name: f"{time:{FORM}}" for name, time in (("since", first), ("until", last))}
