"""`reuse` of a single create: answers with an equal link that is there already, or makes one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never
from urllib.parse import quote, urlsplit

import msgspec

from app.domain.domains import Domain, DomainIndex
from app.domain.slug import MOVED, ORDINARY
from app.ports import Answered, IdempotentRequest, RequestMismatch
from app.service.batch_plans import ItemOutcome, NewItem
from app.service.bulk import BatchDone, BulkLinks
from app.service.keys import Principal, Scope
from app.web import errors
from app.web.bulk_results import Results
from app.web.bulk_schemas import BatchResults, ItemResult
from app.web.response import Response, json_response
from app.web.schemas import CreateLink


async def make_or_find(
    draft: CreateLink,
    principal: Principal,
    request: IdempotentRequest | None,
    *,
    bulk: BulkLinks,
    domains: DomainIndex,
    domain: Domain,
) -> Response:
    """
    Return the link that *draft* describes: 200 if it was there, 201 if it is new.

    Raises:
        InvalidInput: a rule is broken. Unavailable: it may or may not have been stored.
    """
    if not principal.may(Scope.LINKS_READ):
        return errors.forbidden(Scope.LINKS_READ)
    principal.reach.check_domain(domain)
    lengths = MOVED if principal.may(Scope.ADMIN) else ORDINARY
    item = NewItem(
        fields=draft.fields(domain.settings.redirect_code),
        slug=None,
        named=frozenset(),
        domain=domain,
        reuse=True,
        expires_in=draft.lifetime(),
    )
    results = Results(domains, principal)
    render: Callable[[Sequence[ItemOutcome]], bytes] = results.encoded
    outcome = await bulk.create([bulk.checked(item, draft.slug, lengths)], request=request, render=render)
    match outcome:
        case BatchDone(outcomes):
            return _answer(results.of(outcomes[0], 0), domains)
        case Answered(answer):
            [result] = _decoded(answer, domains)
            return _answer(result, domains, ("idempotency-replayed", "true"))
        case RequestMismatch():
            return errors.idempotency_key_reused()
        case _:
            assert_never(outcome)


def _decoded(answer: bytes, domains: DomainIndex) -> list[ItemResult]:
    """Return the results of a stored answer; one of an earlier release names no domain."""
    document = msgspec.json.decode(answer)
    for result in document["results"]:
        if "link" in result:
            result["link"].setdefault("domain", domains.default.host)
    return msgspec.convert(document, BatchResults).results


def _answer(result: ItemResult, domains: DomainIndex, *headers: tuple[str, str]) -> Response:
    link = result.link
    # A checked item that names no slug and no external id is stored or found.
    assert link is not None  # noqa: S101
    etag = ("etag", f'"{link.version}"')
    location = ("location", api_path(domains, link.domain, link.slug))
    return json_response(result.status, link, [etag, location, *headers])


def api_path(domains: DomainIndex, host: str, slug: str) -> str:
    """Return the path and query at which the API has a link."""
    query = "" if host == domains.default.host else f"?domain={host}"
    return f"{urlsplit(domains.public_url).path}/api/v1/links/{quote(slug, safe='')}{query}"
