"""Reads the items of batches: each as strictly as the body of a request of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from app.domain.domains import DomainIndex
from app.domain.errors import FieldError, HopgateError, InvalidInput
from app.domain.link import Slug
from app.domain.slug import Lengths
from app.service.batch_plans import EditItem, Fault, NewItem, RemovalItem
from app.service.bulk import BulkLinks
from app.service.key_management import check_owner
from app.web import i_json, schemas
from app.web.bulk_schemas import MAX_ITEMS, EditedLink, NamedLink
from app.web.i_json import UnreadableBody
from app.web.schemas import CreateLink

_decoder = json.JSONDecoder(**i_json.STRICT)
_SPACE = re.compile(r"[ \t\n\r]*")

Item = TypeVar("Item")


def read_batch(body: bytes) -> tuple[dict[str, Any], Sequence[object]]:
    """
    Return the members of the object *body* but `links`, and the items of that.

    Read item by item, so that other threads run meanwhile.

    Raises:
        UnreadableBody: it is no JSON object, or no I-JSON.
        InvalidInput: `links` is no array of 1 to `MAX_ITEMS`.
    """
    with i_json.readable():
        return _Reader(body.decode("utf-8")).read()


def each(documents: Sequence[object], read: Callable[[Any], Item]) -> list[Item | Fault]:
    """Return what *read* makes of each document; a `Fault` of those that break a rule."""
    items: list[Item | Fault] = []
    for document in documents:
        try:
            items.append(read(document))
        except (InvalidInput, UnreadableBody) as error:
            items.append(Fault(error))
    return items


def new_item(
    bulk: BulkLinks, domains: DomainIndex, lengths: Lengths, *, reuse: bool, may_find: bool = True
) -> Callable[[Any], NewItem]:
    """Return what reads a link to make; *reuse* holds for all of them, if the key *may_find* any."""

    def read(document: Any) -> NewItem:
        draft = i_json.converted(document, CreateLink)
        if draft.reuse and not may_find:
            raise InvalidInput([FieldError("reuse", "scope_missing", "needs the scope links:read as well")])
        domain = domains.served(draft.domain)
        item = NewItem(
            fields=draft.fields(domain.settings.redirect_code),
            slug=None,
            named=frozenset(document).difference(schemas.NOT_FIELDS),
            domain=domain,
            names_domain=draft.domain is not None,
            reuse=reuse or draft.reuse,
            expires_in=draft.lifetime(),
        )
        return bulk.checked(item, draft.slug, lengths)

    return read


def edit_item(domains: DomainIndex, owners: Collection[str] | None, document: Any) -> EditItem:
    """
    Return the change that *document* asks for.

    Args:
        owners: whom links may be handed to; None: the key may hand none over.
    """
    edit = i_json.converted(document, EditedLink)
    patch, expires_in, owner = edit.changes(), edit.lifetime(), edit.new_owner()
    if owner is not None and owners is None:
        raise InvalidInput([FieldError("owner", "scope_missing", "needs the scope admin")])
    check_owner(owner, owners or ())
    if not patch and expires_in is None and owner is None:
        raise InvalidInput([FieldError("body", "nothing_to_change", "must name at least one field")])
    return EditItem(
        slug=_key(domains, edit.slug, edit.domain),
        patch=patch,
        version=edit.version,
        expires_in=expires_in,
        owner=owner,
    )


def removal_item(domains: DomainIndex, document: Any) -> RemovalItem:
    """Return the removal that *document* asks for."""
    if isinstance(document, str):
        return RemovalItem(slug=_key(domains, document, None))
    named = i_json.converted(document, NamedLink)
    return RemovalItem(slug=_key(domains, named.slug, named.domain), version=named.version)


def _key(domains: DomainIndex, name: str, host: str | None) -> Slug | None:
    return domains.served(host).known_key(name)


class _Reader:
    """Reads one JSON object with an array of items."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._has_escapes = "\\u" in text

    def read(self) -> tuple[dict[str, Any], list[object]]:
        members: dict[str, Any] = {}
        items: list[object] | None = None
        self._take("{")
        while not (not members and items is None and self._next_is("}")):
            name = self._value()
            if not isinstance(name, str):
                raise ValueError(f"a name is expected before character {self._at}")  # noqa: TRY004 - as the parser does
            self._take(":")
            if name in members or (name == "links" and items is not None):
                raise ValueError("a name occurs twice in an object")
            if name == "links" and self._next_is("["):
                items = self._items()
            else:
                members[name] = self._value()
            if not self._next_is(","):
                self._take("}")
                break
        self._skip()
        if self._at < len(self._text):
            raise ValueError(f"something follows the object at character {self._at}")
        if items == []:
            raise count_invalid()
        return members, items or []

    def _items(self) -> list[object]:
        items: list[object] = []
        if self._next_is("]"):
            return items
        while True:
            items.append(self._value())
            if len(items) > MAX_ITEMS:
                raise count_invalid()
            if not self._next_is(","):
                self._take("]")
                return items

    def _value(self) -> Any:
        self._skip()
        try:
            value, self._at = _decoder.raw_decode(self._text, self._at)
        except StopIteration:
            raise ValueError(f"a value is expected at character {self._at}") from None
        if self._has_escapes:
            i_json.check_surrogates(value)
        return value

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        if match is not None:
            self._at = match.end()

    def _next_is(self, mark: str) -> bool:
        self._skip()
        if not self._text.startswith(mark, self._at):
            return False
        self._at += 1
        return True

    def _take(self, mark: str) -> None:
        if not self._next_is(mark):
            raise ValueError(f"{mark} is expected at character {self._at}")


def count_invalid() -> HopgateError:
    """Return the error of a batch without items, or with too many."""
    message = f"must have 1 to {MAX_ITEMS:,} items; more can be sent as application/x-ndjson"
    return InvalidInput([FieldError("links", "links_count", message)])
