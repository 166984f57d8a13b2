"""The rules for what a user may say about a link. Every broken rule is reported, not just the first."""

from __future__ import annotations

import re
from collections.abc import Collection
from datetime import UTC, datetime

from app.domain import target
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import MAX_MAX_VISITS, REDIRECT_CODES, LinkFields

MAX_TITLE_LENGTH = 512
MAX_TAGS, MAX_TAG_LENGTH = 20, 64
# Years that every store, every cache and every time zone can hold.
_YEARS = range(2000, 9999)
# Control characters, and surrogates that no UTF-8 encoder takes.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def checked(fields: LinkFields, *, own_hosts: Collection[str]) -> LinkFields:
    """
    Return *fields* in canonical form: target canonical, times in UTC, tags once each.

    Raises:
        InvalidInput: with every rule that *fields* breaks.
    """
    errors: list[FieldError] = []
    long_url = fields.long_url
    try:
        long_url = target.canonical(fields.long_url, own_hosts=own_hosts)
    except InvalidInput as error:
        errors += error.errors
    if len(fields.title) > MAX_TITLE_LENGTH or UNPRINTABLE.search(fields.title):
        errors.append(
            FieldError("title", "title_invalid", f"must be at most {MAX_TITLE_LENGTH} printable characters")
        )
    tags = tuple(dict.fromkeys(fields.tags))
    if len(tags) > MAX_TAGS:
        errors.append(FieldError("tags", "tags_too_many", f"are {len(tags)}, the most is {MAX_TAGS}"))
    if any(not 1 <= len(tag) <= MAX_TAG_LENGTH or UNPRINTABLE.search(tag) for tag in tags):
        errors.append(
            FieldError("tags", "tag_invalid", f"must each be 1 to {MAX_TAG_LENGTH} printable characters")
        )
    if fields.redirect_code not in REDIRECT_CODES:
        choices = ", ".join(map(str, REDIRECT_CODES))
        errors.append(FieldError("redirect_code", "redirect_code_invalid", f"must be one of {choices}"))
    valid_from = _checked_time("valid_from", fields.valid_from, errors)
    expires_at = _checked_time("expires_at", fields.expires_at, errors)
    if valid_from and expires_at and valid_from >= expires_at:
        errors.append(FieldError("expires_at", "never_valid", "must be later than valid_from"))
    if fields.max_visits is not None and not 1 <= fields.max_visits <= MAX_MAX_VISITS:
        message = f"must be 1 to {MAX_MAX_VISITS}, or null"
        errors.append(FieldError("max_visits", "max_visits_invalid", message))
    if errors:
        raise InvalidInput(errors)
    return LinkFields(
        long_url=long_url,
        title=fields.title,
        tags=tags,
        redirect_code=fields.redirect_code,
        valid_from=valid_from,
        expires_at=expires_at,
        forward_query=fields.forward_query,
        enabled=fields.enabled,
        max_visits=fields.max_visits,
    )


def _checked_time(field: str, value: datetime | None, errors: list[FieldError]) -> datetime | None:
    if value is None:
        return None
    if value.tzinfo is None:
        errors.append(
            FieldError(field, "time_without_zone", "must name its time zone, as in 2030-01-31T12:00:00Z")
        )
        return None
    if value.year not in _YEARS:
        message = f"must lie in the years {_YEARS.start} to {_YEARS.stop - 1}"
        errors.append(FieldError(field, "time_out_of_range", message))
        return None
    return value.astimezone(UTC)
