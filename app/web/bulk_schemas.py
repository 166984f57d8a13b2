"""The JSON schemas of batches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from app.web import schemas
from app.web.schemas import CreateLink, LinkDocument, PatchLink, Problem

# Links in one JSON body, and its bytes: room for as many links with targets of 3,000 characters.
MAX_ITEMS = 5_000
MAX_BATCH_BYTES = 16 * 1024 * 1024

_Version = Annotated[
    int,
    msgspec.Meta(
        extra_json_schema={
            "minimum": 1,
            "format": "int64",
            "description": "Only this version; otherwise the result is 412.",
        }
    ),
]
_COUNT = msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_ITEMS})
_Atomic = Annotated[
    bool,
    msgspec.Meta(extra_json_schema={"description": "All or nothing: one item that fails undoes the others."}),
]


_Slug = Annotated[str, msgspec.Meta(extra_json_schema={"examples": ["spring-sale"]})]


class EditedLink(PatchLink, forbid_unknown_fields=True, kw_only=True):  # type: ignore[call-arg]
    """Which link to change, and what: fields that are left out stay as they are."""

    slug: _Slug
    domain: schemas.Domain | None = None
    version: _Version | None = None


class NamedLink(msgspec.Struct, forbid_unknown_fields=True):
    """Which link to remove."""

    slug: _Slug
    domain: schemas.Domain | None = None
    version: _Version | None = None


class CreateBatch(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /api/v1/links/bulk`."""

    links: Annotated[list[CreateLink], _COUNT]
    atomic: _Atomic = False
    upsert: (
        Annotated[
            Literal["external_id"],
            msgspec.Meta(
                extra_json_schema={
                    "description": "An item whose `external_id` a link has changes what it names of that link"
                    " (200) instead of making one (201). Needs `links:read` as well."
                }
            ),
        ]
        | None
    ) = None
    reuse: schemas.Reuse = False


class EditBatch(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `PATCH /api/v1/links/bulk`."""

    links: Annotated[list[EditedLink], _COUNT]
    atomic: _Atomic = False


class RemovalBatch(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `DELETE /api/v1/links/bulk`: slugs of the default domain, or objects that say more."""

    links: Annotated[list[_Slug | NamedLink], _COUNT]
    atomic: _Atomic = False


class ItemResult(msgspec.Struct, omit_defaults=True):
    """
    What became of one item: the status that a request of its own would have, and its body.

    `link`, or its `domain`, `slug` and `version` if it was removed or the key may not read it; or `error`.
    `line` is the number of the line, from 1 on, in answers to lines.
    """

    status: int
    link: LinkDocument | None = None
    domain: str | None = None
    slug: str | None = None
    version: int | None = None
    error: Problem | None = None
    line: int | None = None


class BatchResults(msgspec.Struct):
    """The result of each item, in the order of the items."""

    results: list[ItemResult]


# The bodies without their items, which are read one by one.
OPTIONS: Mapping[type, type] = {
    batch: msgspec.defstruct(
        "Options",
        [
            (field.name, list[Any] if field.name == "links" else field.type, field.default)
            for field in sorted(
                msgspec.structs.fields(batch), key=lambda one: one.name == "links", reverse=True
            )
        ],
        forbid_unknown_fields=True,
    )
    for batch in (CreateBatch, EditBatch, RemovalBatch)
}
