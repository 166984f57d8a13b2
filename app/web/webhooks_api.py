"""The API of webhooks: where events of links are sent, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated, Any, ClassVar

import msgspec

from app.domain import lifetime
from app.domain.errors import FieldError, InvalidInput
from app.domain.link_key import name_of
from app.domain.rules import MAX_TITLE_LENGTH
from app.domain.webhooks import DeliveryState, DisabledReason, EventKind, Webhook
from app.ports import Delivery
from app.resilience.admission import WorkKind
from app.resilience.deadline import ADMIN_S, WRITE_S
from app.service.keys import Scope
from app.service.webhooks import NewSecret, Webhooks
from app.web import cursors, errors, patterns, schemas
from app.web.endpoint import Operation
from app.web.find_links import DEFAULT_PAGE, LIMIT
from app.web.middleware import ApiMiddleware, Call
from app.web.parameters import Kind, QueryReader, one
from app.web.response import Response, empty_response, json_response
from app.web.robyn_app import Router
from app.web.schemas import described

CURSOR = one(
    "cursor",
    Kind({"type": "string", "pattern": patterns.LISTING_CURSOR}, str),
    "`next_cursor` of the page before.",
)
_Url = Annotated[
    str,
    described(
        pattern=patterns.HOOK,
        examples=["https://hooks.example.com/hopgate"],
        description="Of another server, with TLS unless the operator allows it without. Where it leads to an"
        " address that is not of the public internet, no delivery is made.",
    ),
]
_Name = Annotated[str, described(maxLength=MAX_TITLE_LENGTH, pattern=patterns.PRINTABLE, examples=["crm"])]
_Kind = Annotated[str, described(enum=[str(kind) for kind in EventKind])]
_Kinds = Annotated[
    tuple[_Kind, ...], described(description="The kinds of events that are sent; none stands for all.")
]
_Domain = Annotated[
    str, described(pattern=patterns.HOST, description="Only events of links of this domain are sent.")
]
_Tag = Annotated[
    str,
    described(
        minLength=1,
        maxLength=MAX_TITLE_LENGTH,
        # With something to read.
        pattern="^[A-Za-z0-9][A-Za-z0-9 _-]*$",
        description="Only events of links with this tag are sent. Every script is accepted.",
    ),
]
_Grace = Annotated[
    str,
    described(
        pattern=f"^0$|{lifetime.PATTERN}",
        examples=["1d"],
        description="How long the present secret signs beside the new one; `0`: no longer.",
    ),
]
_Time = Annotated[datetime, described(**schemas.TIME)]


class AddWebhook(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/webhooks`."""

    url: _Url
    name: _Name = ""
    kinds: _Kinds = ()
    domain: _Domain | None = None
    tag: _Tag | None = None
    enabled: bool = True


_SETTINGS = msgspec.structs.fields(AddWebhook)
_Changes: Any = msgspec.defstruct(
    "_Changes", [(field.name, field.type | msgspec.UnsetType, msgspec.UNSET) for field in _SETTINGS]
)


class PatchWebhook(_Changes, forbid_unknown_fields=True):  # type: ignore[misc, call-arg]
    """The body of `PATCH /api/v1/webhooks/{webhook_id}`: what is left out stays as it is."""

    extra_json_schema: ClassVar[dict[str, Any]] = {"minProperties": 1}

    def changes(self) -> Mapping[str, Any]:
        """Return the settings that the body names."""
        values = {field.name: getattr(self, field.name) for field in _SETTINGS}
        return {name: value for name, value in values.items() if value is not msgspec.UNSET}


class RotateWebhook(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/webhooks/{webhook_id}/rotate`."""

    grace: _Grace = "1d"


class ReplayWebhook(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/webhooks/{webhook_id}/replay`. Without `since`, what is dead is replayed."""

    since: _Time | msgspec.UnsetType = msgspec.UNSET


class WebhookDocument(msgspec.Struct, kw_only=True):
    """
    A webhook without its secret. `old_secret_until`: until then the secret before signs as well.

    `disabled_reason` is `receiver_gone` if it was disabled because its receiver answered 410.
    """

    webhook_id: str
    url: str
    name: str
    kinds: list[EventKind]
    domain: str | None
    tag: str | None
    enabled: bool
    disabled_reason: DisabledReason | None
    created_at: datetime
    updated_at: datetime
    old_secret_until: datetime | None


class NewWebhook(WebhookDocument, kw_only=True):
    """A webhook with its secret, which is shown once."""

    secret: str


class WebhookList(msgspec.Struct):
    """All webhooks, oldest first."""

    webhooks: list[WebhookDocument]


class DeliveryDocument(msgspec.Struct):
    """
    The delivery of an event; `id` is the `webhook-id` of its message.

    `next_attempt_at` is null unless it is pending. `status` is that of the last answer, `problem` says why
    there was none. `id` and `kind` are null once the event is forgotten.
    """

    id: str | None
    kind: EventKind | None
    slug: str
    state: DeliveryState
    attempts: int
    created_at: datetime
    attempted_at: datetime | None
    next_attempt_at: datetime | None
    status: int | None
    problem: str | None


class DeliveryPage(msgspec.Struct):
    """One page of deliveries, latest first; `next_cursor` is null on the last."""

    deliveries: list[DeliveryDocument]
    next_cursor: str | None


class Replay(msgspec.Struct):
    """What is replayed: so many dead deliveries, or the events from a time on, whose number is null."""

    replayed: int | None


class WebhookTest(msgspec.Struct):
    """What came of a test message: `status` is that of the answer, `problem` says why there was none."""

    delivered: bool
    status: int | None
    problem: str | None


def webhook_document(webhook: Webhook) -> WebhookDocument:
    """Return *webhook* as the API shows it."""
    return WebhookDocument(**_values(webhook))


def new_webhook_document(made: NewSecret) -> NewWebhook:
    """Return a webhook with its secret, for the one time that it is shown."""
    return NewWebhook(**_values(made.webhook), secret=made.secret)


def register(api: Router, middleware: ApiMiddleware, webhooks: Webhooks) -> None:
    """Declare the endpoints of webhooks on *api*, the router of `/api/v1`."""

    @api.get("/webhooks")
    @middleware.endpoint(
        Operation(
            summary="List the webhooks, oldest first",
            scope=Scope.ADMIN,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, WebhookList),
            problems=(422,),
        )
    )
    async def list_webhooks(_call: Call[None]) -> Response:
        return json_response(200, WebhookList([webhook_document(one) for one in await webhooks.all()]))

    @api.post("/webhooks")
    @middleware.endpoint(
        Operation(
            summary="Send events of links to a URL",
            scope=Scope.ADMIN,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(201, NewWebhook),
            problems=(411, 413, 415, 422),
        ),
        body=AddWebhook,
    )
    async def add_webhook(call: Call[AddWebhook]) -> Response:
        settings = {field.name: getattr(call.body, field.name) for field in _SETTINGS}
        return _with_secret(201, await webhooks.add(**settings))

    _register_one(api, middleware, webhooks)
    _register_deliveries(api, middleware, webhooks)


def _register_one(api: Router, middleware: ApiMiddleware, webhooks: Webhooks) -> None:
    """Declare the endpoints of a single webhook."""

    @api.get("/webhooks/:webhook_id")
    @middleware.endpoint(
        Operation(
            summary="Read a webhook",
            scope=Scope.ADMIN,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, WebhookDocument),
            problems=(404, 422),
        )
    )
    async def get_webhook(call: Call[None]) -> Response:
        return _found(await webhooks.find(_id(call)))

    @api.patch("/webhooks/:webhook_id")
    @middleware.endpoint(
        Operation(
            summary="Change what the body names",
            scope=Scope.ADMIN,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(200, WebhookDocument),
            problems=(404, 411, 413, 415, 422),
        ),
        body=PatchWebhook,
    )
    async def change_webhook(call: Call[PatchWebhook]) -> Response:
        patch = call.body.changes()
        if not patch:
            raise InvalidInput([FieldError("body", "nothing_to_change", "must name at least one field")])
        return _found(await webhooks.change(_id(call), patch))

    @api.delete("/webhooks/:webhook_id")
    @middleware.endpoint(
        Operation(
            summary="Remove a webhook and what was to be delivered",
            scope=Scope.ADMIN,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(204, None),
            problems=(404, 411, 422),
        )
    )
    async def remove_webhook(call: Call[None]) -> Response:
        return empty_response(204) if await webhooks.remove(_id(call)) else errors.not_found()

    @api.post("/webhooks/:webhook_id/rotate")
    @middleware.endpoint(
        Operation(
            summary="Give a webhook another secret",
            scope=Scope.ADMIN,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(200, NewWebhook),
            problems=(404, 411, 413, 415, 422),
        ),
        body=RotateWebhook,
    )
    async def rotate_webhook(call: Call[RotateWebhook]) -> Response:
        grace = timedelta(0) if call.body.grace == "0" else lifetime.parse(call.body.grace, field="grace")
        rotated = await webhooks.rotate(_id(call), grace=grace)
        return errors.not_found() if rotated is None else _with_secret(200, rotated)


def _register_deliveries(api: Router, middleware: ApiMiddleware, webhooks: Webhooks) -> None:
    """Declare what is asked and done about the deliveries of a webhook."""

    @api.get("/webhooks/:webhook_id/deliveries")
    @middleware.endpoint(
        Operation(
            summary="List what was and will be delivered, latest event first",
            scope=Scope.ADMIN,
            work=WorkKind.LIST,
            deadline_s=ADMIN_S,
            success=(200, DeliveryPage),
            problems=(404, 422),
            parameters=(LIMIT, CURSOR),
        )
    )
    async def list_deliveries(call: Call[None]) -> Response:
        reader, webhook_id = QueryReader(call.request), _id(call)
        limit, cursor = reader.one(LIMIT) or DEFAULT_PAGE, reader.one(CURSOR)
        reader.check()
        before = cursors.delivery_in(webhook_id, cursor)
        found = await webhooks.deliveries(webhook_id, before=before, limit=limit + 1)
        if found is None:
            return errors.not_found()
        last = found[limit - 1].position if len(found) > limit else None
        documents = [delivery_document(delivery) for delivery in found[:limit]]
        return json_response(200, DeliveryPage(documents, cursors.of_deliveries(webhook_id, last)))

    @api.post("/webhooks/:webhook_id/replay")
    @middleware.endpoint(
        Operation(
            summary="Deliver again what is dead, or the events from a time on",
            scope=Scope.ADMIN,
            work=WorkKind.WRITE,
            deadline_s=WRITE_S,
            success=(200, Replay),
            problems=(404, 411, 413, 415, 422),
        ),
        body=ReplayWebhook,
    )
    async def replay_webhook(call: Call[ReplayWebhook]) -> Response:
        since = call.body.since
        if since is msgspec.UNSET:
            replayed = await webhooks.replay_dead(_id(call))
            return errors.not_found() if replayed is None else json_response(200, Replay(replayed))
        if since.tzinfo is None:
            message = "must say its offset from UTC, as in 2030-01-31T12:00:00Z"
            raise InvalidInput([FieldError("since", "time_zone_missing", message)])
        is_there = await webhooks.replay_since(_id(call), since)
        return json_response(200, Replay(None)) if is_there else errors.not_found()

    @api.post("/webhooks/:webhook_id/test")
    @middleware.endpoint(
        Operation(
            summary="Send a test message, once, and say what came of it",
            scope=Scope.ADMIN,
            work=WorkKind.WRITE,
            deadline_s=ADMIN_S,
            success=(200, WebhookTest),
            problems=(404, 411, 422),
            asks_others=True,
        )
    )
    async def test_webhook(call: Call[None]) -> Response:
        tested = await webhooks.test(_id(call))
        if tested is None:
            return errors.not_found()
        return json_response(200, WebhookTest(tested.is_delivered, tested.status, tested.problem))


def _id(call: Call[Any]) -> str:
    return call.request.path_params["webhook_id"]


def _found(webhook: Webhook | None) -> Response:
    return errors.not_found() if webhook is None else json_response(200, webhook_document(webhook))


def _with_secret(status: int, made: NewSecret) -> Response:
    return json_response(status, new_webhook_document(made))


def _values(webhook: Webhook) -> dict[str, Any]:
    return {
        "webhook_id": webhook.webhook_id,
        "url": webhook.url,
        "name": webhook.name,
        "kinds": sorted(webhook.filter.kinds),
        "domain": webhook.filter.domain,
        "tag": webhook.filter.tag,
        "enabled": webhook.enabled,
        "disabled_reason": webhook.disabled_reason,
        "created_at": webhook.created_at,
        "updated_at": webhook.updated_at,
        "old_secret_until": webhook.old_until,
    }


def delivery_document(delivery: Delivery) -> DeliveryDocument:
    """Return *delivery* as the API shows it."""
    return DeliveryDocument(
        id=None if delivery.uid is None else f"evt_{delivery.uid}",
        kind=delivery.kind,
        slug=name_of(delivery.slug),
        state=delivery.state,
        attempts=delivery.attempts,
        created_at=delivery.created_at,
        attempted_at=delivery.attempted_at,
        next_attempt_at=delivery.next_attempt_at if delivery.state is DeliveryState.PENDING else None,
        status=delivery.status,
        problem=delivery.problem,
    )
