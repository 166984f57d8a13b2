"""What a form says of a link, as the documents of the API say it: the same rules hold for both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from app.domain import utm
from app.domain.errors import FieldError, InvalidInput
from app.domain.link import LinkFields
from app.web import i_json, schemas

Form = Mapping[str, str]
# What a form shows of a link; `enabled` and `analytics` are boxes that are sent when they are ticked.
FIELDS = ("long_url", "title", "tags", "expires_at", "max_visits", *utm.NAMES)
BLANK: Form = {"slug": "", "domain": "", **dict.fromkeys(FIELDS, ""), "enabled": "on"}
# As browsers send a `datetime-local`.
_LOCAL_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?")
_NUMBER = re.compile(r"\d{1,16}")


def shown(fields: LinkFields) -> Form:
    """Return what a form shows of a link with *fields*."""
    found = {name: value or "" for name, value in utm.shown(fields.long_url).items()}
    return {
        "long_url": fields.long_url,
        "title": fields.title,
        "tags": ", ".join(fields.tags),
        "expires_at": _shown_time(fields.expires_at),
        "max_visits": "" if fields.max_visits is None else str(fields.max_visits),
        "enabled": "on" if fields.enabled else "",
        "analytics": "on" if fields.analytics else "",
        **found,
    }


def draft_of(form: Form) -> schemas.CreateLink:
    """Return the new link that *form* describes; raises InvalidInput."""
    document = {
        name: value
        for name, value in _document({name: form.get(name, "") for name in FIELDS}).items()
        if value is not None
    }
    document |= {name: form[name].strip() for name in ("slug", "domain") if form.get(name, "").strip()}
    document.setdefault("long_url", "")
    return i_json.converted(document, schemas.CreateLink)


def changes_of(form: Form, fields: LinkFields) -> Mapping[str, Any]:
    """Return what *form* changes of a link that has *fields*; raises InvalidInput."""
    before = shown(fields)
    typed = {name: form.get(name, before[name]) for name in FIELDS}
    document = _document({name: value for name, value in typed.items() if value.strip() != before[name]})
    is_enabled = form.get("enabled", "") == "on"
    if is_enabled != fields.enabled:
        document["enabled"] = is_enabled
    # Of a form that has no such box, nothing is said of it.
    if "has_analytics" in form and (form.get("analytics", "") == "on") != fields.analytics:
        document["analytics"] = not fields.analytics
    if not document:
        return {}
    return i_json.converted(document, schemas.PatchLink).changes()


def patch_of(form: Form) -> Mapping[str, Any]:
    """Return the change that the fields of *form* are, each as it is shown; raises InvalidInput."""
    return i_json.converted(_document(form), schemas.PatchLink).changes()


def _document(form: Form) -> dict[str, Any]:
    """Return *form* as a document of the API; None: it says nothing of the field."""
    errors: list[FieldError] = []
    document: dict[str, Any] = {}
    for name, typed in form.items():
        value = typed.strip()
        if name == "tags":
            document[name] = read_list(value)
        elif name in {"long_url", "title"}:
            document[name] = value
        elif not value:
            document[name] = None
        elif name == "expires_at":
            document[name] = read_time(value, errors)
        elif name == "max_visits":
            document[name] = read_number(name, value, errors)
        else:
            document[name] = value
    if errors:
        raise InvalidInput(errors)
    return document


def read_number(name: str, text: str, errors: list[FieldError]) -> int | None:
    """Return the number that *text* is; None if it is none, which joins *errors*."""
    if _NUMBER.fullmatch(text) is not None:
        return int(text)
    errors.append(FieldError(name, f"{name}_invalid", "must be a whole number"))
    return None


def read_list(text: str) -> list[str]:
    """Return what commas part in *text*."""
    return [one.strip() for one in text.split(",") if one.strip()]


def read_time(text: str, errors: list[FieldError]) -> str:
    """Return the time *text* of a form, in UTC, as the API has it; what is wrong joins *errors*."""
    wrong = FieldError("expires_at", "time_invalid", "must be a date that exists, with a time")
    try:
        if _LOCAL_TIME.fullmatch(text) is None:
            raise ValueError
        return datetime.fromisoformat(text).replace(tzinfo=UTC).isoformat()
    except ValueError:
        errors.append(wrong)
        return ""


def _shown_time(time: datetime | None) -> str:
    if time is None:
        return ""
    text = time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds")
    return text.removesuffix(":00") if text.endswith(":00") and time.second == 0 else text
