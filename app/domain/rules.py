"""The rules for the fields of a link. Every broken rule is reported, not only the first."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from app.domain import target
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import MAX_MAX_VISITS, REDIRECT_CODES, LinkFields
from app.domain.policy import WEB_ONLY, TargetPolicy

MAX_TITLE_LENGTH = 512
MAX_TAGS, MAX_TAG_LENGTH = 20, 64
MAX_EXTERNAL_ID_LENGTH = 255
# What crawlers may be told; not `all` and `none`, which people take for each other.
ROBOTS = ("noindex", "nofollow", "noarchive", "nosnippet", "noimageindex", "notranslate")
_FORWARDING = frozenset({"long_url", "forward_query"})
# Fields that are judged together.
_PAIRS = (frozenset({"valid_from", "expires_at"}), frozenset({"forward_query", "override_query"}))
# Breaks no rule, whatever the addresses of the service are.
_UNOBJECTIONABLE = LinkFields(long_url="https://unchanged.invalid/")
# The years that every store, cache and time zone can represent.
_YEARS = range(2000, 9999)
_NOT_FORWARDED = FieldError(
    "forward_query", "forward_query_scheme", "needs a target with a server, as in https://example.com"
)
CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
# And surrogates, which have no UTF-8 form.
UNPRINTABLE = re.compile(rf"[{CONTROLS}\ud800-\udfff]")


def checked(fields: LinkFields, *, own_hosts: Collection[str], policy: TargetPolicy = WEB_ONLY) -> LinkFields:
    """
    Return *fields* in canonical form: target canonical, times in UTC, tags once each.

    Raises:
        InvalidInput: with every rule that *fields* breaks.
    """
    errors: list[FieldError] = []
    long_url = _checked_target(fields, own_hosts, policy, errors)
    if (wrong := text_problem(fields.title, MAX_TITLE_LENGTH)) is not None:
        errors.append(FieldError("title", "title_invalid", wrong))
    # Counted as they are sent, like the OpenAPI document counts them.
    if len(fields.tags) > MAX_TAGS:
        message = f"are {len(fields.tags)}, the most is {MAX_TAGS}"
        errors.append(FieldError("tags", "tags_too_many", message))
    tags = tuple(dict.fromkeys(fields.tags))
    wrong = next((problem for tag in tags if (problem := tag_problem(tag)) is not None), None)
    if wrong is not None:
        errors.append(FieldError("tags", "tag_invalid", f"has a tag that {wrong}"))
    if fields.redirect_code not in REDIRECT_CODES:
        choices = ", ".join(map(str, REDIRECT_CODES))
        errors.append(FieldError("redirect_code", "redirect_code_invalid", f"must be one of {choices}"))
    valid_from = checked_time("valid_from", fields.valid_from, errors)
    expires_at = checked_time("expires_at", fields.expires_at, errors)
    if valid_from and expires_at and valid_from >= expires_at:
        errors.append(FieldError("expires_at", "never_valid", "must be later than valid_from"))
    if fields.max_visits is not None and not 1 <= fields.max_visits <= MAX_MAX_VISITS:
        message = f"must be 1 to {MAX_MAX_VISITS}, or null"
        errors.append(FieldError("max_visits", "max_visits_invalid", message))
    if fields.external_id is not None and (wrong := _external_id_problem(fields.external_id)) is not None:
        errors.append(FieldError("external_id", "external_id_invalid", wrong))
    if fields.override_query and not fields.forward_query:
        errors.append(FieldError("override_query", "override_query_alone", "needs forward_query"))
    expired_url = _checked_expired_url(fields.expired_url, own_hosts, policy, errors)
    robots = _checked_robots(fields.robots, errors)
    if errors:
        raise InvalidInput(errors)
    # What has no canonical form of its own stays as it is.
    return _changed(
        fields,
        long_url=long_url,
        tags=tags,
        valid_from=valid_from,
        expires_at=expires_at,
        expired_url=expired_url,
        robots=robots,
    )


def edited(
    stored: LinkFields,
    wanted: LinkFields,
    *,
    own_hosts: Collection[str],
    policy: TargetPolicy = WEB_ONLY,
) -> LinkFields:
    """
    Return *wanted*, the edit of a link that has *stored*, in canonical form.

    A field that stays as it is obeys the rules: an earlier version may have taken what this one
    refuses, and an edit of the title is no edit of the target. The two times are judged together,
    and so is what becomes of queries.

    Raises:
        InvalidInput: with every rule that the edit breaks.
    """
    kept = {
        field.name: getattr(stored, field.name)
        for field in dataclasses.fields(stored)
        if getattr(stored, field.name) == getattr(wanted, field.name)
    }
    for pair in _PAIRS:
        if not kept.keys() >= pair:
            kept = {name: value for name, value in kept.items() if name not in pair}
    judged = replace(wanted, **{name: getattr(_UNOBJECTIONABLE, name, value) for name, value in kept.items()})
    fields = replace(checked(judged, own_hosts=own_hosts, policy=policy), **kept)
    if not kept.keys() >= _FORWARDING and fields.forward_query and _takes_no_query(fields.long_url):
        raise InvalidInput([_NOT_FORWARDED])
    return fields


def _changed(fields: LinkFields, **canonical: Any) -> LinkFields:
    """Return *fields* with those in *canonical* form; most are sent in it, and a copy is slow to make."""
    same = all(getattr(fields, name) == value for name, value in canonical.items())
    # Equal times may have other zones.
    is_timeless = canonical["valid_from"] is None and canonical["expires_at"] is None
    return fields if same and is_timeless else replace(fields, **canonical)


def _takes_no_query(long_url: str) -> bool:
    """Would the query of a visitor write into a mail or a call?"""
    return not long_url.partition(":")[2].startswith("//")


def text_problem(text: str, longest: int) -> str | None:
    """Return what is wrong with *text*, of at most *longest* characters, as the end of a sentence."""
    if len(text) > longest:
        return f"is {len(text)} characters, the most is {longest}"
    match = UNPRINTABLE.search(text)
    if match is None:
        return None
    if match[0] in "\n\r\u2028\u2029\x85":
        return "has a line break"
    if "\ud800" <= match[0] <= "\udfff":
        return "is not UTF-8"
    return f"has the control character U+{ord(match[0]):04X}"


def tag_problem(tag: str) -> str | None:
    """Return what is wrong with *tag*, as the end of a sentence."""
    return text_problem(tag, MAX_TAG_LENGTH) if tag else "is empty"


def _checked_target(
    fields: LinkFields, own_hosts: Collection[str], policy: TargetPolicy, errors: list[FieldError]
) -> str:
    """Return the target in canonical form; what is wrong with it joins *errors*."""
    try:
        long_url = target.canonical(fields.long_url, own_hosts=own_hosts, policy=policy)
    except InvalidInput as error:
        errors += error.errors
        return fields.long_url
    if fields.forward_query and _takes_no_query(long_url):
        errors.append(_NOT_FORWARDED)
    return long_url


def _checked_expired_url(
    url: str | None, own_hosts: Collection[str], policy: TargetPolicy, errors: list[FieldError]
) -> str | None:
    if url is None:
        return None
    try:
        return target.canonical(url, own_hosts=own_hosts, policy=policy)
    except InvalidInput as error:
        errors += (FieldError("expired_url", one.code, one.message) for one in error.errors)
        return url


def _checked_robots(text: str | None, errors: list[FieldError]) -> str | None:
    if text is None:
        return None
    words = [word.strip(" ").lower() for word in text.split(",")]
    if not set(ROBOTS).issuperset(words):
        message = f"must be null, or words by commas, of {', '.join(ROBOTS)}"
        errors.append(FieldError("robots", "robots_invalid", message))
    return ", ".join(dict.fromkeys(words))


def _external_id_problem(text: str) -> str | None:
    return text_problem(text, MAX_EXTERNAL_ID_LENGTH) if text else "is empty; null stands for none"


def checked_time(field: str, value: datetime | None, errors: list[FieldError]) -> datetime | None:
    """Return *value* in UTC; what is wrong with it joins *errors*, as an error of *field*."""
    if value is None:
        return None
    if value.tzinfo is None:
        errors.append(
            FieldError(field, "time_without_zone", "must name its time zone, as in 2030-01-31T12:00:00Z")
        )
        return None
    # First in UTC: near the edges, the year of another zone is not the year that is stored.
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        moment = None
    if moment is None or moment.year not in _YEARS:
        message = f"must lie in the years {_YEARS.start} to {_YEARS.stop - 1}"
        errors.append(FieldError(field, "time_out_of_range", message))
        return None
    return moment
