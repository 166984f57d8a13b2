"""The JSON schemas of listings: links and tags."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, ClassVar

import msgspec

from app.domain import rules
from app.domain.domains import DomainIndex
from app.domain.link import Link
from app.web import patterns, schemas

FIELDS = tuple(field.name for field in msgspec.structs.fields(schemas.LinkDocument))

_Listed: Any = msgspec.defstruct(
    "_Listed",
    [
        (field.name, field.type | msgspec.UnsetType, msgspec.UNSET)
        for field in msgspec.structs.fields(schemas.LinkDocument)
    ],
)
_Name = Annotated[
    str,
    msgspec.Meta(
        extra_json_schema={
            "minLength": 1,
            "maxLength": rules.MAX_TAG_LENGTH,
            "pattern": patterns.PRINTABLE,
            "examples": ["summer"],
        }
    ),
]


class ListedLink(_Listed):  # type: ignore[misc]
    """A link, or those of its fields that the parameter `fields` names."""


class LinkPage(msgspec.Struct):
    """
    One page of links; `next_cursor` is null on the last.

    `count` is there if it was asked for: how many links pass the filters, on all pages; null if counting them
    takes too long.
    """

    links: list[ListedLink]
    next_cursor: str | None
    count: int | msgspec.UnsetType | None = msgspec.UNSET


class TagDocument(msgspec.Struct):
    """A tag, and how many links have it; removed links do not count."""

    tag: str
    links: int


class TagPage(msgspec.Struct):
    """One page of tags in the order of their code points; `next_cursor` is null on the last."""

    tags: list[TagDocument]
    next_cursor: str | None


class RenameTag(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PATCH /api/v1/tags`: the tag to have instead."""

    name: _Name


class RetaggedLinks(msgspec.Struct):
    """How many links were changed; with `done` false some have the tag still, and the request continues."""

    changed: int
    done: bool

    example: ClassVar[dict[str, Any]] = {"changed": 12, "done": True}


def listed_link(link: Link, domains: DomainIndex, names: Collection[str]) -> ListedLink:
    """Return *link* as a listing shows it: the fields *names*, or all of them if there are none."""
    document = schemas.link_document(link, domains)
    return ListedLink(**{name: getattr(document, name) for name in names or FIELDS})
