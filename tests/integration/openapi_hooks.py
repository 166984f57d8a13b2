"""
Changes requests of schemathesis so that they keep the rules that no JSON Schema can say.

Those rules have tests of their own: `valid_from` comes before `expires_at`, which lies in the future of a new
link; `since` comes before `until` by at most 31 days; an Idempotency-Key belongs to one request; a cursor
belongs to its listing, whose ranges begin before they end, and whose tags do not contradict each other; a
link that may be found again is no restricted one, and a link has so many aliases at most; a domain is one
that is served, an owner a key that is there, and a key's restrictions fit together; a QR code has contrast,
room, and a logo where the service has one.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import RejectedPositiveData

API = "/api/v1"
HOUR, MONTH = timedelta(hours=1), timedelta(days=30)
FUTURE, LAST = datetime(2100, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)
FORM = "%Y-%m-%dT%H:%M:%SZ"
MOST_SLOW = 5
RESTRICTING = {"valid_from", "expires_at", "expires_in", "max_visits", "external_id", "expired_url", "robots"}
EXCLUDE_REUSE = {"slug", "aliases", "enabled", *RESTRICTING}
_OF_STATE = ("file_refused", "aliases_too_many", "case_sensitive_fixed", "override_query_alone")
MADE_UP = {"domain", "owner", "own_links", "domains", "allowed_addresses", "rate_limit"}
SLOW: list[str] = []
COUNT = count()


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
    path = case.path.removeprefix(API)
    assert path != case.path, f"{case.path} is not below {API}: no rule would be kept"
    if isinstance(case.body, dict):
        case.body = in_order(case.body, is_change=case.method == "PATCH")
        case.body = within_rules(reusable(case.body), path)
    case.query = asked(case.query, path, case.method)
    case.path_parameters = addressed(case.path_parameters, path)
    key = case.headers.get("Idempotency-Key")
    if key is not None:
        # Equal requests keep equal keys, so that answers are also replayed.
        said = repr((case.method, path, case.path_parameters, case.query, case.body))
        digest = hashlib.sha256(said.encode(errors="surrogatepass")).hexdigest()
        case.headers["Idempotency-Key"] = f"{key[:128]}-{digest}"


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Any, case: schemathesis.Case, response: schemathesis.Response
) -> bool:
    """Let a few requests miss their deadline: other tests use the disk and the processors, too."""
    if response.status_code == 503 and "took too long" in response.text:
        SLOW.append(case.path)
        return len(SLOW) > MOST_SLOW
    if isinstance(failure, RejectedPositiveData) and response.status_code == 422:
        # What a file says is no matter of its media type, nor what a link had before one of the request.
        return not any(code in response.text for code in _OF_STATE)
    if not isinstance(failure, AcceptedNegativeData) or response.status_code != 200:
        return True
    return not _may_accept(case.path, failure.message)


def _may_accept(path: str, breach: str) -> bool:
    """Tell whether a request to *path* is right, although the document describes no such one."""
    # The items of a batch are judged one by one: the answer to a wrong one is in the results.
    if path.endswith("/links/bulk"):
        return True
    # A file is text, and so is a query: a number for a host is one as well. A repeated value counts once.
    if path.endswith("/import") and ("in body" in breach or "body: " in breach):
        return True
    if "in query" in breach and ("Incorrect type" in breach or "`maxItems`" in breach):
        return True
    # Hosts and slugs of every script can be blocked.
    return path.endswith("/blocks") and "`pattern`" in breach


def in_order(body: dict[str, Any], *, is_change: bool) -> dict[str, Any]:
    """Return *body* with `valid_from` before `expires_at`; what a change leaves out depends on the link."""
    named = {name: body[name] for name in ("valid_from", "expires_at") if name in body}
    if "expires_in" in body and (is_change or "valid_from" in body):
        return {**body, "valid_from": None}
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


def reusable(body: dict[str, Any]) -> dict[str, Any]:
    """Return *body*, without restrictions if it takes a link that is there as well."""
    if not body.get("reuse"):
        return body
    return {name: value for name, value in body.items() if name not in EXCLUDE_REUSE}


def within_rules(body: dict[str, Any], path: str) -> dict[str, Any]:
    """Return *body* without what breaks a rule, or contradicts what the server has."""
    # No domain is served at a host that was made up, and no key has such an id.
    body = {name: value for name, value in body.items() if name not in MADE_UP}
    if isinstance(body.get("aliases"), list):
        body["aliases"] = [{"slug": one["slug"]} for one in body["aliases"] if "slug" in one]
    if body.get("override_query"):
        body["forward_query"] = True
    if body.get("expires_at") is not None:
        body = {name: value for name, value in body.items() if name != "expires_in"}
    match path:
        case "/domains":
            # Only so many are served.
            return {**body, "host": f"h{len(str(body['host'])) % 50}.example"}
        case "/links/bulk":
            # All of them, or none: an item that breaks a rule refuses the others.
            return {**body, "atomic": False}
        case "/keys":
            # A name without a visible character tells no keys apart.
            return {**body, "name": f"k{body['name'][1:]}"}
        case "/tags":
            # Another than the tag itself, which an earlier request may have named so.
            return {**body, "name": f"{str(body['name'])[:50]}-{next(COUNT)}"}
        case "/links/{slug}/aliases" | "/links/{slug}/rename" if "slug" in body:
            # Another than that of the link itself, and no link's.
            return {**body, "slug": f"{str(body['slug'])[:30]}-{next(COUNT)}"}
        case "/blocks":
            # What is blocked is refused in later requests.
            return {"hosts": [f"evil{len(body.get('hosts', ()))}.example"], "slugs": ["blocked-1"]}
    return body


def asked(query: dict[str, Any], path: str, method: str) -> dict[str, Any]:
    """Return *query* without what belongs elsewhere, or contradicts the rest."""
    left_out = {"domain", "alias_domain"}
    match path:
        case "/links/bulk":
            # The options of a body belong in it.
            return {}
        case "/links" | "/tags" | "/export" if method == "GET":
            left_out |= {"cursor", "tags_none"} | {name for name in query if name.endswith("_until")}
        case "/links/{slug}/history" | "/blocks" | "/webhooks/{webhook_id}/deliveries":
            left_out.add("cursor")
        case "/links/{slug}/qr":
            # Colours that were made up have too little contrast, a small code has no room for a long URL, and
            # this service has no logo.
            left_out |= {"color", "background", "logo"}
            if "size" in query and int(query["size"]) < 256:
                left_out.add("size")
        case "/links/{slug}/stats" | "/stats":
            # Zones have names of their own, and are for intervals.
            left_out.add("time_zone")
            left_out |= set() if "since" in query else {"until"}
            if "since" in query:
                query = {**query, **in_range(query["since"], query.get("until"))}
    return {name: value for name, value in query.items() if name not in left_out}


def addressed(parameters: dict[str, Any], path: str) -> dict[str, Any]:
    """Return *parameters* with a host or slug that can be blocked; never the domain that always is."""
    match path:
        case "/blocks/hosts/{value}":
            return {"value": "evil1.example"}
        case "/blocks/slugs/{slug}":
            return {"slug": "blocked-1"}
        case "/domains/{host}":
            return {"host": f"h{len(str(parameters['host'])) % 50}.example"}
    return parameters


def in_range(since: str, until: str | None) -> dict[str, str]:
    """Return a range of at most 31 days that begins or ends as asked for; *since* alone: of one hour."""
    first, last = sorted(datetime.fromisoformat(text).astimezone(UTC) for text in (since, until or since))
    first = max(first, last - MONTH)
    if first == last:
        last = min(last + HOUR, LAST)
    return {name: f"{time:{FORM}}" for name, time in (("since", first), ("until", last))}
