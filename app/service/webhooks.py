"""The operations on webhooks, for API and command line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from app.domain import webhooks
from app.domain.errors import Contended, FieldError, InvalidInput
from app.domain.policy import TargetPolicy
from app.domain.webhooks import MAX_WEBHOOKS, SECRET_BYTES, EventFilter, EventKind, Webhook
from app.ports import Delivery, EventLogStore, Undeliverable, WebhookSender, WebhookStore

_EDIT_TRIES = 8


class Store(EventLogStore, WebhookStore, Protocol):
    """What the operations on webhooks need of a store."""


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A webhook, and its secret as receivers take it, which is shown once."""

    webhook: Webhook
    secret: str


@dataclass(frozen=True, slots=True)
class Tested:
    """What came of a test message: the status of the answer, or why there is none."""

    status: int | None
    problem: str | None

    @property
    def is_delivered(self) -> bool:
        """Would an event count as delivered?"""
        return self.status is not None and 200 <= self.status < 300


class Webhooks:
    """
    The operations on webhooks.

    Args:
        allows_http: webhooks without TLS are allowed.
        own_hosts: addresses of this service, which no webhook may have.
        policy: has the hosts that are blocked, and the domains of this service.
        domain: returns the host of the domain that a text names; raises InvalidInput if there is none.
        test_message: returns the body of a test message.
        clock: the present time, timezone-aware UTC.
        choice: picks one character of a string; pass `secrets.choice`.
        token: returns so many random bytes; pass `secrets.token_bytes`.
    """

    def __init__(
        self,
        store: Store,
        sender: WebhookSender,
        *,
        allows_http: bool,
        own_hosts: Collection[str],
        policy: TargetPolicy,
        domain: Callable[[str], str],
        test_message: Callable[[datetime], bytes],
        clock: Callable[[], datetime],
        choice: Callable[[str], str],
        token: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._sender = sender
        self._allows_http = allows_http
        self._own_hosts = own_hosts
        self._policy = policy
        self._domain = domain
        self._test_message = test_message
        self._clock = clock
        self._choice = choice
        self._token = token

    async def add(
        self,
        url: str,
        *,
        name: str = "",
        kinds: Collection[str] = (),
        domain: str | None = None,
        tag: str | None = None,
        enabled: bool = True,
    ) -> NewSecret:
        """
        Add a webhook, which gets the events from now on.

        Raises:
            InvalidInput: with every broken rule, or there are `MAX_WEBHOOKS` already.
            Unavailable: it may or may not have been added.
        """
        now, secret = self._clock(), self._token(SECRET_BYTES)
        blank = Webhook(
            webhook_id=webhooks.new_id(self._choice),
            url="",
            name="",
            filter=EventFilter(),
            enabled=enabled,
            secret=secret,
            created_at=now,
            updated_at=now,
        )
        asked = {"url": url, "name": name, "kinds": kinds, "domain": domain, "tag": tag}
        webhook = self._edited(blank, asked)
        if not await self._store.add_webhook(webhook, most=MAX_WEBHOOKS):
            message = f"there are {MAX_WEBHOOKS} webhooks already"
            raise InvalidInput([FieldError("url", "too_many_webhooks", message)])
        return NewSecret(webhook, webhooks.shown_secret(secret))

    async def all(self) -> Sequence[Webhook]:
        """Return all webhooks, oldest first. Raises Unavailable."""
        return await self._store.webhooks()

    async def find(self, webhook_id: str) -> Webhook | None:
        """Return the webhook. Raises Unavailable."""
        found = (one for one in await self._store.webhooks() if one.webhook_id == webhook_id)
        return next(found, None)

    async def change(self, webhook_id: str, asked: Mapping[str, Any]) -> Webhook | None:
        """
        Change the settings that *asked* names, by the names of `add`; None if there is no such webhook.

        Raises:
            InvalidInput: with every broken rule.
            Unavailable: it may or may not have been changed.
        """
        return await self._change(webhook_id, lambda webhook: self._edited(webhook, asked))

    async def rotate(self, webhook_id: str, *, grace: timedelta) -> NewSecret | None:
        """
        Give the webhook another secret; the present one signs as well for *grace*, an older one no longer.

        None as `change`.
        """
        secret = self._token(SECRET_BYTES)
        until = self._clock() + grace

        def rotated(webhook: Webhook) -> Webhook:
            return replace(webhook, secret=secret, old_secret=webhook.secret, old_until=until)

        changed = await self._change(webhook_id, rotated)
        return None if changed is None else NewSecret(changed, webhooks.shown_secret(secret))

    async def remove(self, webhook_id: str) -> bool:
        """Remove the webhook and what was to be delivered; False if there is none. Raises Unavailable."""
        return await self._store.remove_webhook(webhook_id)

    async def deliveries(
        self, webhook_id: str, *, before: int | None, limit: int
    ) -> Sequence[Delivery] | None:
        """Return deliveries before a position, latest first; None if there is no such webhook."""
        if await self.find(webhook_id) is None:
            return None
        return await self._store.deliveries(webhook_id, before=before, limit=limit)

    async def replay_dead(self, webhook_id: str) -> int | None:
        """Deliver what is dead again; return how many deliveries, None if there is no such webhook."""
        if await self.find(webhook_id) is None:
            return None
        return await self._store.replay_dead(webhook_id, now=self._clock())

    async def replay_since(self, webhook_id: str, since: datetime) -> bool:
        """
        Deliver the events from *since* on again, as far as they are kept.

        Returns False if there is no such webhook.
        """
        if await self.find(webhook_id) is None:
            return False
        await self._store.replay_after(webhook_id, await self._position_before(since))
        return True

    async def test(self, webhook_id: str) -> Tested | None:
        """Send a test message, once; None if there is no such webhook. Raises Unavailable."""
        webhook = await self.find(webhook_id)
        if webhook is None:
            return None
        now = self._clock()
        body, message_id = self._test_message(now), f"test_{self._token(16).hex()}"
        headers = webhooks.signed_headers(message_id, now, body, webhook.secrets(now))
        try:
            return Tested((await self._sender.send(webhook.url, headers, body)).status, None)
        except Undeliverable as error:
            return Tested(None, str(error))

    async def _position_before(self, since: datetime) -> int:
        """Return the position after which the events from *since* on stand; their times grow, nearly."""
        low, high = 0, await self._store.last_event()
        while low < high:
            middle = (low + high) // 2
            page = await self._store.events_after(middle, limit=1)
            if page.events and page.events[0].at < since:
                low = page.until
            else:
                high = middle
        return low

    async def _change(self, webhook_id: str, edit: Callable[[Webhook], Webhook]) -> Webhook | None:
        for _ in range(_EDIT_TRIES):
            current = await self.find(webhook_id)
            if current is None:
                return None
            changed = replace(edit(current), updated_at=self._clock())
            if await self._store.change_webhook(changed):
                return replace(changed, version=changed.version + 1)
        raise Contended("store", f"{_EDIT_TRIES} changes of a webhook lost the race to others")

    def _edited(self, webhook: Webhook, asked: Mapping[str, Any]) -> Webhook:
        """Return *webhook* with what is *asked*, checked; raises InvalidInput with every broken rule."""
        errors: list[FieldError] = []
        found: dict[str, Any] = {}
        for name, value in asked.items():
            try:
                found[name] = self._checked(name, value)
            except InvalidInput as error:
                errors += error.errors
        if errors:
            raise InvalidInput(errors)
        if "enabled" in found:
            found["disabled_reason"] = None
        wanted = {name: found.pop(name) for name in ("kinds", "domain", "tag") if name in found}
        return replace(webhook, **found, filter=replace(webhook.filter, **wanted))

    def _checked(self, name: str, value: Any) -> Any:
        match name:
            case "url":
                return webhooks.checked_url(
                    value, allows_http=self._allows_http, own_hosts=self._own_hosts, policy=self._policy
                )
            case "kinds":
                return checked_kinds(value)
            case "domain" if value is not None:
                return self._domain(value)
            case "name" | "tag" if value is not None:
                webhooks.check_text(value, name)
        return value


def checked_kinds(texts: Collection[str], field: str = "kinds") -> frozenset[EventKind]:
    """Return the kinds that are written as *texts*; raises InvalidInput."""
    unknown = [text for text in texts if webhooks.kind_of(text) is None]
    if unknown:
        message = f"there is no kind {unknown[0][:60]!r}; there are {', '.join(EventKind)}"
        raise InvalidInput([FieldError(field, "kind_unknown", message)])
    return frozenset(EventKind(text) for text in texts)
