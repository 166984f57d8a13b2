"""What became of the items of a batch, as the API says it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import msgspec

from app.domain.domains import DomainIndex
from app.domain.errors import InvalidInput
from app.domain.link import Link
from app.domain.link_key import name_of
from app.ports import ExternalIdTaken, VersionMismatch
from app.service.batch_plans import (
    Fault,
    ItemOutcome,
    Kept,
    Missing,
    SlugFixed,
    Stored,
    Taken,
    succeeded,
)
from app.service.keys import Principal
from app.service.links import IsAlias, Removed, SlugTaken
from app.web import conflicts, errors, schemas
from app.web.bulk_schemas import BatchResults, ItemResult
from app.web.response import Response
from app.web.schemas import ItemProblem, Problem

_encoder = msgspec.json.Encoder()
_problems = msgspec.json.Decoder(Problem)


@dataclass(frozen=True, slots=True)
class Results:
    """Renders outcomes for *principal*: a key that may not read links sees only what it has sent."""

    domains: DomainIndex
    principal: Principal

    def encoded(self, outcomes: Sequence[ItemOutcome]) -> bytes:
        """Return the body of the answer to a batch."""
        return _encoder.encode(BatchResults([self.of(one, index) for index, one in enumerate(outcomes)]))

    def line(self, outcome: ItemOutcome, number: int) -> bytes:
        """Return the line that answers line *number* of a stream, from 1 on."""
        result = self.of(outcome, number - 1, root="")
        result.line = number
        return _encoder.encode(result) + b"\n"

    @staticmethod
    def failed(number: int, response: Response) -> bytes:
        """Return the line that answers line *number* by *response*, a problem."""
        problem = _problems.decode(response.body)
        problem.pointer = f"/{number - 1}"
        return _encoder.encode(ItemResult(response.status, error=problem, line=number)) + b"\n"

    def refused(self, outcomes: Sequence[ItemOutcome]) -> Response:
        """Return the answer to an atomic batch of which nothing was stored."""
        found = [(index, one) for index, one in enumerate(outcomes) if not succeeded(one)]
        items = []
        for index, one in found:
            result = self.of(one, index)
            if result.error is not None:
                items.append(ItemProblem(index, result.status, result.error))
        return errors.batch_refused(items)

    def of(self, outcome: ItemOutcome, index: int, *, root: str = "/links") -> ItemResult:
        """Return the result of item *index*, which is in the array at *root*."""
        match outcome:
            case Stored(link, is_new):
                return self._shown(201 if is_new else 200, link, is_own=is_new)
            case Kept(link):
                return self._shown(200, link)
            case Taken(link):
                return self._named(link)
            case _:
                response = self._problem(outcome)
                problem = _problems.decode(response.body)
                problem.pointer = f"{root}/{index}"
                return ItemResult(response.status, error=problem)

    def _problem(  # noqa: PLR0911 - one for each outcome
        self,
        outcome: Fault
        | SlugTaken
        | ExternalIdTaken
        | SlugFixed
        | VersionMismatch
        | Removed
        | IsAlias
        | Missing,
    ) -> Response:
        match outcome:
            case Fault(InvalidInput() as error):
                return errors.invalid(error)
            case Fault(error):
                return errors.unreadable(str(error))
            case SlugTaken(link):
                return conflicts.slug_taken(link, self.principal, self.domains)
            case ExternalIdTaken(link):
                return conflicts.external_id_taken(link, self.principal, self.domains)
            case SlugFixed(link):
                document = conflicts.seen(link, self.principal, self.domains)
                return errors.slug_fixed(self.domains.short_url(link.slug), document)
            case VersionMismatch(link):
                return conflicts.version_mismatch(link, self.principal, self.domains)
            case IsAlias():
                return errors.is_alias(None)
            case Removed():
                return errors.gone()
            case Missing():
                return errors.not_found()
            case _:
                assert_never(outcome)

    def _shown(self, status: int, link: Link, *, is_own: bool = False) -> ItemResult:
        if is_own or self.principal.may_see(link):
            return ItemResult(status, link=schemas.link_document(link, self.domains))
        return self._named(link)

    def _named(self, link: Link) -> ItemResult:
        host, slug = self.domains.of(link.slug).host, name_of(link.slug)
        return ItemResult(204, domain=host, slug=slug, version=link.version)
