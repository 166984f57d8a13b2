"""
Events of links as other programs receive them, and webhooks: where they are sent.

A message is signed as Standard Webhooks says (https://www.standardwebhooks.com): HMAC-SHA256 of its id, its
time and its body.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum

from app.domain import target
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import Link
from app.domain.policy import TargetPolicy
from app.domain.rules import MAX_TITLE_LENGTH, text_problem

# Each has work of its own in every worker.
MAX_WEBHOOKS = 100
SECRET_PREFIX = "whsec_"  # noqa: S105 - what marks a secret is none
SECRET_BYTES = 32
_ID_LENGTH = 12
# Longer than any date; what is more than that is no time that was meant.
_MAX_TIME_LENGTH = 64
_LONGEST_S = 10**9
_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class EventKind(StrEnum):
    """What happened to a link."""

    CREATED = "link.created"
    CHANGED = "link.changed"
    REMOVED = "link.removed"
    EXPIRED = "link.expired"
    LIMIT_REACHED = "link.limit_reached"
    FIRST_VISIT = "link.first_visit"


_KINDS: Mapping[str, EventKind] = {kind.value: kind for kind in EventKind}


def kind_of(text: str | None) -> EventKind | None:
    """Return the kind that is written as *text*; a later release may have further ones."""
    return None if text is None else _KINDS.get(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEvent:
    """
    An event and the link as it was by then, `visits` aside.

    `position` grows in the order of commits; the events of one link have the order of its versions. After the
    store went back to an earlier state, a position may be another event's; `uid` never is.
    """

    position: int
    uid: str
    kind: EventKind
    at: datetime
    link: Link


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events are wanted. `kinds`: none means all. `domain` is a host, `tag` one of the link's tags."""

    kinds: frozenset[EventKind] = frozenset()
    domain: str | None = None
    tag: str | None = None

    def wants(self, event: LinkEvent, domain: str) -> bool:
        """Return whether *event*, of a link of *domain*, passes."""
        return (
            (not self.kinds or event.kind in self.kinds)
            and (self.domain is None or self.domain == domain)
            and (self.tag is None or self.tag in event.link.fields.tags)
        )


class DisabledReason(StrEnum):
    """Why a webhook was disabled without a client."""

    RECEIVER_GONE = "receiver_gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """
    Where events are sent.

    `url` is canonical. `disabled_reason`: None if it is enabled, or a client disabled it. `old_secret` signs
    as well until `old_until`. `position`: the events up to it were planned. `version` grows with each change
    of the settings.
    """

    webhook_id: str
    url: str
    name: str
    filter: EventFilter
    enabled: bool
    disabled_reason: DisabledReason | None = None
    secret: bytes
    old_secret: bytes | None = None
    old_until: datetime | None = None
    position: int = 0
    version: int = 1
    created_at: datetime
    updated_at: datetime

    def secrets(self, now: datetime) -> Sequence[bytes]:
        """Return the secrets that sign at *now*, the newest first."""
        if self.old_secret is None or self.old_until is None or now >= self.old_until:
            return (self.secret,)
        return (self.secret, self.old_secret)


class DeliveryState(StrEnum):
    """What becomes of an event for one webhook."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """
    Pauses after failed attempts; after the last of them a delivery is dead.

    A pause is drawn from 80 to 120 % of its length, so that what failed together is not sent together again.
    """

    pauses: tuple[timedelta, ...]

    def pause(
        self, attempts: int, random: Callable[[], float], *, asked: timedelta = timedelta(0)
    ) -> timedelta | None:
        """
        Return how long to wait after *attempts*, None: it is dead.

        Args:
            random: gives floats in [0, 1).
            asked: how long the receiver asks to wait, which counts as far as `bounded` says.
        """
        if attempts > len(self.pauses):
            return None
        return max(self.pauses[attempts - 1] * (0.8 + 0.4 * random()), self.bounded(asked))

    def bounded(self, asked: timedelta) -> timedelta:
        """Return *asked*, or the longest of the pauses if it is longer: no receiver keeps events for good."""
        return min(asked, max(self.pauses, default=timedelta(0)))


def asked_pause(text: str | None, now: datetime) -> timedelta:
    """Return how long `Retry-After` asks to wait: seconds or a date; no time if *text* is neither."""
    text = (text or "").strip()
    if not text or len(text) > _MAX_TIME_LENGTH:
        return timedelta(0)
    if re.fullmatch("[0-9]+", text):
        return timedelta(seconds=min(int(text), _LONGEST_S))
    try:
        at = parsedate_to_datetime(text)
        return max(timedelta(0), (at if at.tzinfo else at.replace(tzinfo=UTC)) - now)
    except (ValueError, TypeError, OverflowError, IndexError):
        return timedelta(0)


def new_id(choice: Callable[[str], str]) -> str:
    """Return the id of a new webhook; *choice* picks one character of a string."""
    return "wh_" + "".join(choice(_BASE62) for _ in range(_ID_LENGTH))


def shown_secret(secret: bytes) -> str:
    """Return *secret* as receivers take it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


def signed_headers(message_id: str, at: datetime, body: bytes, secrets: Sequence[bytes]) -> Mapping[str, str]:
    """Return the headers of a message that is sent *at* this time, with a signature for each of *secrets*."""
    timestamp = str(int(at.timestamp()))
    signed = f"{message_id}.{timestamp}.".encode() + body
    macs = [hmac.digest(secret, signed, hashlib.sha256) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{base64.b64encode(mac).decode()}" for mac in macs),
    }


def checked_url(
    text: str, *, allows_http: bool, own_hosts: Collection[str], policy: TargetPolicy, field: str = "url"
) -> str:
    """
    Return the canonical form of the URL *text* of a webhook.

    Addresses are checked at each connection: see `app.domain.addresses`.

    Raises:
        InvalidInput: it is no URL of another server, or has a user name or a password.
    """
    schemes = frozenset({"http", "https"} if allows_http else {"https"})
    limited = TargetPolicy(schemes=schemes, blocks=policy.blocks, domains=policy.domains)
    try:
        return target.canonical(text, own_hosts=own_hosts, policy=limited).partition("#")[0]
    except InvalidInput as error:
        raise InvalidInput([FieldError(field, one.code, one.message) for one in error.errors]) from None


def check_text(text: str, field: str) -> None:
    """Check a name or a tag; raises InvalidInput."""
    wrong = text_problem(text, MAX_TITLE_LENGTH)
    if wrong is None and field == "tag" and all(unicodedata.category(one)[0] in "CZ" for one in text):
        wrong = "has nothing to read"
    if wrong is not None:
        raise InvalidInput([FieldError(field, f"{field}_invalid", wrong)])
