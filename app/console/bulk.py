"""Changing, removing and undoing several links of the list at once, with a result for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, assert_never
from urllib.parse import parse_qsl

from app.console import drafts
from app.console.gate import Gate, form_of
from app.console.link import key_of
from app.console.links import FILTERS, by_field
from app.console.rendering import Pages, Viewer
from app.domain.errors import InvalidInput, Unavailable
from app.domain.link import Link, Slug
from app.domain.link_key import name_of
from app.ports import AddressTaken, ExternalIdTaken, Policy, VersionMismatch
from app.resilience.deadline import BATCH_S
from app.service.batch_plans import (
    EditItem,
    Fault,
    ItemOutcome,
    Kept,
    Missing,
    RemovalItem,
    SlugFixed,
    Stored,
    Taken,
)
from app.service.bulk import BatchDone, BatchOutcome
from app.service.history import NothingToUndo
from app.service.keys import Scope
from app.service.links import IsAlias, Removed, SlugTaken
from app.web import errors
from app.web.middleware import ApiMiddleware, Call
from app.web.response import Response
from app.web.robyn_app import Router
from app.web.services import Services

PATH = "/console/links/bulk"
_LEASE_S = 0.5
_Undone = (
    Link
    | VersionMismatch
    | ExternalIdTaken
    | NothingToUndo
    | IsAlias
    | AddressTaken
    | InvalidInput
    | Unavailable
    | None
)
# How the link of an item is changed; None: it is as it was asked for already.
_Edit = Callable[[Link], Mapping[str, Any] | None]


class Action(StrEnum):
    """What a form may ask for; the texts have each as `bulk_…`."""

    ADD_TAG = "add_tag"
    REMOVE_TAG = "remove_tag"
    EXPIRE = "expire"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Pick:
    """A link that was selected, as its row has shown it."""

    slug: str
    host: str
    version: int
    key: Slug | None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one link; `undo` names it for the form that undoes it."""

    slug: str
    host: str
    text: str
    is_done: bool
    undo: str = ""


def register(app: Router, gate: Gate, middleware: ApiMiddleware, pages: Pages, services: Services) -> None:
    """Declare the pages on *app*."""
    bulk = _Bulk(middleware, pages, services)
    form = gate.page(Scope.LINKS_WRITE, deadline_s=BATCH_S, is_form=True)
    app.post(PATH)(form(bulk.change))
    app.post(f"{PATH}/undo")(form(bulk.undo))


class _Bulk:
    def __init__(self, middleware: ApiMiddleware, pages: Pages, services: Services) -> None:
        self._middleware = middleware
        self._pages = pages
        self._bulk = services.bulk
        self._links = services.links
        self._history = services.history
        self._domains = services.domains
        self._on_error = services.on_error

    async def change(self, call: Call[Any], viewer: Viewer) -> Response:
        """Do to each selected link what the form asks for, in one transaction."""
        form = form_of(call.request)
        picks = await self._picks(form)
        refusal = await self._refused(call, viewer, picks)
        if refusal is not None:
            return refusal
        action = next((one for one in Action if one == form.get("do")), None)
        if not picks or action is None:
            return self._page(viewer, form, (), status=422, error=self._pages.text("bulk_nothing"))
        try:
            edit = _edit_of(action, form)
        except InvalidInput as error:
            told = "; ".join(f"{name}: {message}" for name, message in by_field(error).items())
            return self._page(viewer, form, (), status=422, error=told)
        outcomes = await (self._removed(picks) if edit is None else self._edited(picks, edit))
        results = [self._result(pick, one) for pick, one in zip(picks, outcomes, strict=True)]
        return self._page(viewer, form, results, heading=self._pages.text(f"bulk_{action}"))

    async def undo(self, call: Call[Any], viewer: Viewer) -> Response:
        """Undo the last change of each link, if it is the one that the form names."""
        form = form_of(call.request)
        picks = await self._picks(form)
        refusal = await self._refused(call, viewer, picks)
        if refusal is not None:
            return refusal
        results = [self._undone(pick, await self._undo(pick)) for pick in picks]
        return self._page(viewer, form, results, heading=self._pages.text("undo"))

    async def _picks(self, form: drafts.Form) -> Sequence[Pick]:
        found = []
        for name, text in form.items():
            if not name.startswith("pick-"):
                continue
            version, _, rest = text.partition(" ")
            host, _, slug = rest.partition(" ")
            key = await key_of({"domain": host, "slug": slug}, self._domains)
            number = int(version) if version.isascii() and version.isdigit() and len(version) < 16 else 0
            found.append(Pick(slug, host, number, key))
        return found

    async def _refused(self, call: Call[Any], viewer: Viewer, picks: Sequence[Pick]) -> Response | None:
        if not viewer.can_read:
            return errors.forbidden(Scope.LINKS_READ)
        if not picks:
            return None
        key = call.principal.key_id
        return await self._middleware.charge(Policy.BULK, key, len(picks), longest_s=_LEASE_S)

    async def _removed(self, picks: Sequence[Pick]) -> Sequence[ItemOutcome]:
        items = [RemovalItem(slug=pick.key, version=pick.version) for pick in picks]
        return _outcomes(await self._bulk.remove(items, render=lambda _: b""))

    async def _edited(self, picks: Sequence[Pick], edit: _Edit) -> Sequence[ItemOutcome]:
        links = await self._links.get_many([pick.key for pick in picks if pick.key])
        kept: dict[int, ItemOutcome] = {}
        items: dict[int, EditItem] = {}
        for number, pick in enumerate(picks):
            link = links.get(pick.key) if pick.key else None
            patch = edit(link) if link is not None else {}
            if patch is None and link is not None:
                kept[number] = Kept(link)
            else:
                # What is no link any more, or another version, is refused for that.
                items[number] = EditItem(slug=pick.key, patch=patch or {}, version=pick.version)
        outcomes = (
            _outcomes(await self._bulk.change(list(items.values()), render=lambda _: b"")) if items else ()
        )
        done = {**kept, **dict(zip(items, outcomes, strict=True))}
        return [done[number] for number in range(len(picks))]

    async def _undo(self, pick: Pick) -> _Undone:
        if pick.key is None:
            return None
        try:
            return await self._history.undo(pick.key, expected_version=pick.version)
        except Unavailable as error:
            # The others have their results.
            self._on_error(error)
            return error
        except InvalidInput as error:
            return error

    def _result(self, pick: Pick, outcome: ItemOutcome) -> Result:
        match outcome:
            case Stored(link) | Taken(link):
                return self._done(pick, link)
            case Fault(InvalidInput() as error):
                return Result(pick.slug, pick.host, "; ".join(by_field(error).values()), is_done=False)
            case Kept():
                told = "bulk_kept"
            case VersionMismatch():
                told = "bulk_meanwhile"
            case Removed():
                told = "problem_410"
            case Missing():
                told = "problem_404"
            case Fault() | SlugTaken() | ExternalIdTaken() | SlugFixed() | IsAlias():
                told = "bulk_refused"
            case _:
                assert_never(outcome)
        return self._told(pick, told, is_done=isinstance(outcome, Kept))

    def _undone(self, pick: Pick, outcome: _Undone) -> Result:
        match outcome:
            case Link():
                return self._done(pick, outcome)
            case VersionMismatch():
                return self._told(pick, "bulk_meanwhile")
            case Unavailable():
                return self._told(pick, "problem_503")
            case None:
                return self._told(pick, "problem_404")
            case ExternalIdTaken() | AddressTaken() | NothingToUndo() | IsAlias() | InvalidInput():
                return self._told(pick, "bulk_refused")
            case _:
                assert_never(outcome)

    def _done(self, pick: Pick, link: Link) -> Result:
        undo = f"{link.version} {pick.host} {name_of(link.slug)}"
        return Result(pick.slug, pick.host, self._pages.text("bulk_done"), is_done=True, undo=undo)

    def _told(self, pick: Pick, text: str, *, is_done: bool = False) -> Result:
        return Result(pick.slug, pick.host, self._pages.text(text), is_done=is_done)

    def _page(
        self,
        viewer: Viewer,
        form: drafts.Form,
        results: Sequence[Result],
        *,
        status: int = 200,
        **values: Any,
    ) -> Response:
        shown = {"heading": self._pages.text("bulk"), "error": "", **values}
        back = dict(parse_qsl(form.get("back", "")[:2000]))
        return self._pages.page(
            "bulk.html",
            viewer,
            status=status,
            results=results,
            back=form.get("back", ""),
            back_url=self._pages.url("/console/links", **{name: back.get(name) for name in FILTERS}),
            **shown,
        )


def _edit_of(action: Action, form: drafts.Form) -> _Edit | None:
    """Return what the form asks for; None: the removal. Raises InvalidInput."""
    tag = form.get("tag", "").strip()
    match action:
        case Action.ADD_TAG:
            return lambda link: None if tag in link.fields.tags else {"tags": (*link.fields.tags, tag)}
        case Action.REMOVE_TAG:
            return lambda link: {"tags": _others(link, tag)} if tag in link.fields.tags else None
        case Action.EXPIRE:
            patch = drafts.patch_of({"expires_at": form.get("expires_at", "")})
            return lambda link: None if link.fields.expires_at == patch["expires_at"] else patch
        case Action.REMOVE:
            return None
        case _:
            assert_never(action)


def _others(link: Link, tag: str) -> tuple[str, ...]:
    return tuple(one for one in link.fields.tags if one != tag)


def _outcomes(done: BatchOutcome) -> Sequence[ItemOutcome]:
    if not isinstance(done, BatchDone):
        raise TypeError(done)  # answers from before are for requests with a name
    return done.outcomes
