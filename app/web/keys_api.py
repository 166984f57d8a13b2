"""The HTTP API of API keys: `/api/v1/keys` for those that may do everything, `/api/v1/me` for any key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec

from app.domain import lifetime
from app.domain.domains import DomainIndex
from app.domain.networks import MAX_NETWORKS
from app.domain.rules import MAX_TITLE_LENGTH
from app.ports import ApiKey
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.domains import Domains
from app.service.key_management import Issued, KeyManagement
from app.service.key_restrictions import Restrictions
from app.service.keys import Principal, Scope, parse_scopes
from app.web import errors, patterns, schemas
from app.web.endpoint import Operation
from app.web.middleware import ApiMiddleware, Call
from app.web.response import Response, empty_response, json_response
from app.web.robyn_app import Router

_Name = Annotated[
    str,
    msgspec.Meta(
        extra_json_schema={
            "minLength": 1,
            "maxLength": MAX_TITLE_LENGTH,
            "pattern": patterns.PRINTABLE,
            "examples": ["reporting"],
            "description": "What the key is for, with something to read.",
        }
    ),
]
_Scope = Annotated[str, msgspec.Meta(extra_json_schema={"enum": [str(scope) for scope in Scope]})]
_Scopes = Annotated[
    list[_Scope], msgspec.Meta(extra_json_schema={"minItems": 1, "examples": [[str(Scope.LINKS_READ)]]})
]
_Time = Annotated[datetime, msgspec.Meta(extra_json_schema=schemas.TIME)]
_Domains = Annotated[
    list[schemas.Domain],
    msgspec.Meta(
        extra_json_schema={
            "minItems": 1,
            "description": "The key reaches the links of these domains, and no others; null: of all.",
        }
    ),
]
_Addresses = Annotated[
    list[str],
    msgspec.Meta(
        extra_json_schema={
            "maxItems": MAX_NETWORKS,
            "description": "The networks that the key may be used from, such as `203.0.113.0/24` or"
            " `2001:db8::/32`; none: from any address.",
        }
    ),
]
_OwnLinks = Annotated[
    bool,
    msgspec.Meta(extra_json_schema={"description": "The key reaches the links that it owns, and no others."}),
]
_Rate = Annotated[
    str,
    msgspec.Meta(
        extra_json_schema={
            "description": "How many requests the key may make, in place of the setting HOPGATE_LIMIT_API:"
            " `100 per minute`, `10/s burst 20`.",
        }
    ),
]
_Grace = Annotated[
    str,
    msgspec.Meta(
        extra_json_schema={
            "pattern": f"^0$|{lifetime.PATTERN}",
            "examples": ["1h", "7d", "0"],
            "description": "How long the present secret counts beside the new one; `0`: no longer.",
        }
    ),
]


class CreateKey(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/keys`. Without an expiry, the key ends with the one that makes it."""

    name: _Name
    scopes: _Scopes
    expires_at: _Time | None = None
    expires_in: schemas.ExpiresIn | None = None
    own_links: _OwnLinks = False
    domains: _Domains | None = None
    allowed_addresses: _Addresses = []
    rate_limit: _Rate | None = None


class RotateKey(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/keys/{key_id}/rotate`."""

    grace: _Grace = "1d"


class KeyDocument(msgspec.Struct, kw_only=True):
    """
    A key without its secret. `last_used_at` trails by up to a minute.

    `old_secret_until`: until then the secret before the last rotation counts as well.
    """

    key_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    old_secret_until: datetime | None
    own_links: bool
    domains: list[str] | None
    allowed_addresses: list[str]
    rate_limit: str | None


class NewKey(KeyDocument, kw_only=True):
    """A key with its text, which is shown once: only a hash is stored."""

    key: str


class KeyList(msgspec.Struct):
    """All keys, oldest first, revoked and expired ones included."""

    keys: list[KeyDocument]


class Me(KeyDocument, kw_only=True):
    """The key of the request. `limits` are its rates, by what they count; all processes share them."""

    limits: dict[str, str]


def register_keys(
    api: Router,
    middleware: ApiMiddleware,
    keys: KeyManagement,
    domains: Domains,
    limits: Mapping[str, str],
) -> None:
    """Declare the endpoints of keys on *api*, the router of `/api/v1`; *limits* are those of each key."""

    @api.get("/keys")
    @middleware.endpoint(
        Operation(
            summary="List API keys, oldest first",
            scope=Scope.ADMIN,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, KeyList),
            problems=(422,),
        )
    )
    async def list_keys(_call: Call[None]) -> Response:
        found = await keys.all()
        return json_response(200, KeyList([KeyDocument(**key_values(key, domains.index)) for key in found]))

    @api.post("/keys")
    @middleware.endpoint(
        Operation(
            summary="Make an API key",
            scope=Scope.ADMIN,
            work=WorkKind.LIST,
            deadline_s=WRITE_S,
            success=(201, NewKey),
            problems=(411, 413, 415, 422),
        ),
        body=CreateKey,
    )
    async def create_key(call: Call[CreateKey]) -> Response:
        issued = await issue(call.body, keys, domains, by=call.principal)
        return _issued(201, issued, domains.index)

    @api.delete("/keys/:key_id")
    @middleware.endpoint(
        Operation(
            summary="Revoke an API key",
            scope=Scope.ADMIN,
            work=WorkKind.LIST,
            deadline_s=WRITE_S,
            success=(204, None),
            problems=(404, 411, 422),
        )
    )
    async def revoke_key(call: Call[None]) -> Response:
        is_there = await keys.revoke(call.request.path_params["key_id"])
        return empty_response(204) if is_there else errors.not_found()

    @api.post("/keys/:key_id/rotate")
    @middleware.endpoint(
        Operation(
            summary="Give an API key another secret",
            scope=Scope.ADMIN,
            work=WorkKind.LIST,
            deadline_s=WRITE_S,
            success=(200, NewKey),
            problems=(404, 411, 413, 415, 422),
        ),
        body=RotateKey,
    )
    async def rotate_key(call: Call[RotateKey]) -> Response:
        grace = timedelta(0) if call.body.grace == "0" else lifetime.parse(call.body.grace, field="grace")
        issued = await keys.rotate(call.request.path_params["key_id"], by=call.principal, grace=grace)
        return errors.not_found() if issued is None else _issued(200, issued, domains.index)

    @api.get("/me")
    @middleware.endpoint(
        Operation(
            summary="What this key is",
            scope=None,
            work=WorkKind.LIST,
            deadline_s=WRITE_S,
            success=(200, Me),
            problems=(422,),
        )
    )
    async def get_me(call: Call[None]) -> Response:
        key = await keys.get(call.principal.key_id)
        if key is None:
            return errors.unauthorized()
        own = {} if key.rate_limit is None else {"requests": key.rate_limit}
        return json_response(200, Me(**key_values(key, domains.index), limits={**limits, **own}))


async def issue(wanted: CreateKey, keys: KeyManagement, domains: Domains, *, by: Principal) -> Issued:
    """Make the key that is *wanted*, for the holder of *by*. Raises InvalidInput and Unavailable."""
    return await keys.create(
        wanted.name,
        parse_scopes(wanted.scopes),
        by=by,
        expires_at=wanted.expires_at,
        expires_in=schemas.lifetime_of(wanted.expires_in, wanted.expires_at),
        restrictions=Restrictions(
            own_links=wanted.own_links,
            domains=await _ids(wanted.domains, domains),
            allowed_addresses=wanted.allowed_addresses,
            rate_limit=wanted.rate_limit,
        ),
    )


async def _ids(hosts: Sequence[str] | None, domains: Domains) -> frozenset[int] | None:
    if hosts is None:
        return None
    return frozenset([(await domains.named(host, "domains")).domain_id for host in hosts])


def _issued(status: int, issued: Issued, domains: DomainIndex) -> Response:
    return json_response(status, NewKey(**key_values(issued.key, domains), key=issued.text))


def key_values(key: ApiKey, domains: DomainIndex) -> dict[str, Any]:
    """Return *key* as `KeyDocument` has it; of its domains, removed ones too, the hosts."""
    hosts = sorted(one.host for one in domains.known() if one.domain_id in (key.domains or ()))
    return {
        "key_id": key.key_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
        "old_secret_until": key.old_until,
        "own_links": key.own_links,
        "domains": None if key.domains is None else hosts,
        "allowed_addresses": list(key.allowed_addresses),
        "rate_limit": key.rate_limit,
    }
