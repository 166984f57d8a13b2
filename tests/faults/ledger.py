"""
The oracle: what was acknowledged, against what is there once everything is quiet.

I1  what was acknowledged is stored: every create, edit and removal, at its version or a later one;
I2  what was refused is not, nothing is stored twice, and nothing that nobody asked for; an
    operation of unknown outcome may be there or not;
I3  nothing waits: outbox and queues are empty, the dead letters are those that were injected;
I4  what is cached is what is stored, or nothing;
I5  every gateway answers with what is stored, byte for byte, and no visitor was ever sent to a
    target that the link never had, told that an acknowledged link does not exist, or that one
    is gone that nobody removed;
I8  every request got an answer, and none a 500.

Every acknowledged change reached the caches if I1, I3 and I4 hold (none was lost on the way);
resources (I7) and bounds (the rest of I8) are figures, see `figures.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.domain.link import Link, Resolution
from tests.faults.journal import Kind, Operation, Outcome, of_kind


@dataclass(frozen=True)
class Violation:
    """A promise that was broken."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


@dataclass(frozen=True)
class Shown:
    """What a gateway answers to a visit."""

    status: int
    location: str | None = None
    # Of a failure, what it said and after how long: which limit was met tells who did not answer.
    why: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)
class FinalState:
    """Everything there is, read from the servers themselves."""

    links: Mapping[str, Link]
    cached: Mapping[str, Resolution] = field(default_factory=dict)
    outbox: int = 0
    waiting: int = 0
    dead: int = 0
    shown: Mapping[str, Mapping[str, Shown]] = field(default_factory=dict)


def violations(history: Sequence[Operation], final: FinalState, *, poison: int = 0) -> list[Violation]:
    """Return every promise that *history* and *final* show to be broken; *poison* messages were injected."""
    return [*violations_on_the_way(history), *violations_at_the_end(history, final, poison=poison)]


def violations_on_the_way(history: Sequence[Operation]) -> list[Violation]:
    """Return what clients saw and never should have; no waiting mends that."""
    return [Violation(rule, what) for rule, what in (*_visits(history), *_answered(history))]


def violations_at_the_end(
    history: Sequence[Operation], final: FinalState, *, poison: int = 0
) -> list[Violation]:
    """Return what is wrong with the state that is left."""
    found = [
        *_stored(history, final.links),
        *_creates(history, final.links),
        *_waiting(final, poison),
        *_cached(final),
        *_shown(final),
    ]
    return [Violation(rule, what) for rule, what in found]


_Found = Iterator[tuple[str, str]]


def _stored(history: Sequence[Operation], links: Mapping[str, Link]) -> _Found:
    """The links whose create was acknowledged, after all that was done to them."""
    changes = _by_slug(of_kind(history, Kind.EDIT, Kind.DELETE))
    for slug, creates in _by_slug(_done(of_kind(history, Kind.CREATE))).items():
        if len(creates) > 1:
            yield "I2", f"{slug} was given out {len(creates)} times: {_ids(creates)}"
        link = links.get(slug)
        if link is None:
            yield "I1", f"{slug} was acknowledged ({_ids(creates)}) and is not stored"
            continue
        if link.fields.title != creates[0].intent.id:
            yield "I2", f"{slug} was acknowledged to {_ids(creates)} and holds that of {link.fields.title}"
        yield from _stored_link(slug, link, creates[0], changes.get(slug, []))


def _stored_link(slug: str, link: Link, create: Operation, changes: Sequence[Operation]) -> _Found:
    unknown = [change for change in changes if change.outcome is Outcome.UNKNOWN]
    done = [create, *_done(changes)]
    versions = [op.version for op in done if op.version is not None]
    for version, count in Counter(versions).items():
        if count > 1:
            yield "I1", f"{slug}: version {version} was acknowledged {count} times, one of them is lost"
    least = max([len(done), *versions])
    if link.version < least:
        yield "I1", f"{slug} is stored at version {link.version}, acknowledged was {least}"
    if link.version > len(done) + len(unknown):
        yield (
            "I2",
            f"{slug} is at version {link.version} after {len(done)} writes and {len(unknown)} unknown ones",
        )
    removals = of_kind(changes, Kind.DELETE)
    if _done(removals) and link.removed_at is None:
        yield "I1", f"{slug}: its removal was acknowledged, and it is back"
    if link.removed_at is not None and all(op.outcome is Outcome.REFUSED for op in removals):
        yield "I2", f"{slug} is removed, and nobody removed it"
    targets = [op for op in done if op.intent.url is not None]
    last = max(targets, key=lambda op: op.version or 0)
    allowed = {op.intent.url for op in [last, *unknown]} - {None}
    if link.fields.long_url not in allowed:
        yield "I1", f"{slug} leads to {link.fields.long_url}, acknowledged last was {last.intent.url}"


def _creates(history: Sequence[Operation], links: Mapping[str, Link]) -> _Found:
    """Links by the create they came from, which their title names."""
    stored: dict[str, list[Link]] = defaultdict(list)
    for link in links.values():
        stored[link.fields.title].append(link)
    creates = {op.intent.id: op for op in of_kind(history, Kind.CREATE)}
    for title, twins in stored.items():
        if title not in creates:
            yield "I2", f"{[link.slug for link in twins]} came from {title!r}, which nobody asked for"
        elif len(twins) > 1:
            yield "I2", f"{title} was stored {len(twins)} times: {[link.slug for link in twins]}"
    for name, create in creates.items():
        if create.outcome is Outcome.REFUSED and name in stored:
            yield "I2", f"{name} was refused ({create.status}) and is stored"
        given = {reply.slug for reply in create.replies if reply.status == 201}
        if len(given) > 1:
            yield "I2", f"{name} was answered with different slugs: {sorted(map(str, given))}"


def _waiting(final: FinalState, poison: int) -> _Found:
    if final.outbox:
        yield "I3", f"{final.outbox} changes are still in the outbox"
    if final.waiting:
        yield "I3", f"{final.waiting} messages are still in the queues"
    if final.dead != poison:
        yield "I3", f"{final.dead} dead letters, {poison} were injected"


def _cached(final: FinalState) -> _Found:
    for slug, resolution in final.cached.items():
        link = final.links.get(slug)
        if link is None:
            if resolution.version != 0:
                yield "I4", f"{slug} is cached at version {resolution.version} and not stored"
        elif resolution != Resolution.of(link):
            yield "I4", f"{slug} is cached at version {resolution.version}, stored is {link.version}"


def _shown(final: FinalState) -> _Found:
    for gateway, answers in final.shown.items():
        for slug, answer in answers.items():
            link = final.links.get(slug)
            if link is None:
                continue
            resolution = Resolution.of(link)
            gone = resolution.long_url is None
            expected = Shown(410) if gone else Shown(resolution.redirect_code, resolution.long_url)
            if answer != expected:
                yield "I5", f"{gateway} answers {answer} for {slug}, stored is {expected}"


def _visits(history: Sequence[Operation]) -> _Found:
    """What visitors saw on the way."""
    created = {op.slug: op for op in _done(of_kind(history, Kind.CREATE))}
    changes = _by_slug(op for op in of_kind(history, Kind.EDIT, Kind.DELETE))
    for visit in of_kind(history, Kind.VISIT, Kind.EDIT, Kind.DELETE):
        create, reply, slug = created.get(visit.slug), visit.reply, visit.slug
        if create is None or reply is None or slug is None:
            continue
        begun = [
            op
            for op in changes.get(slug, [])
            if op.intent.sent_at <= reply.at and op.outcome is not Outcome.REFUSED
        ]
        if reply.status == 404 and create.replies[0].at <= visit.intent.sent_at:
            yield "I5", f"{visit.intent.id}: 404 for {slug}, which was acknowledged before"
        elif reply.status == 410 and not of_kind(begun, Kind.DELETE):
            yield "I5", f"{visit.intent.id}: 410 for {slug}, which nobody had removed"
        elif visit.intent.kind is Kind.VISIT and 300 <= reply.status < 400:
            had = {create.intent.url, *(op.intent.url for op in begun)}
            if reply.location not in had:
                yield "I5", f"{visit.intent.id}: {slug} led to {reply.location}, which it never had"


def _answered(history: Sequence[Operation]) -> _Found:
    for op in history:
        for reply in op.replies:
            if reply.status == 500:
                yield "I8", f"{op.intent.id}: 500 for {op.intent.kind} {op.slug or ''}"
            elif reply.error == "TimeoutError":
                yield "I8", f"{op.intent.id}: {op.intent.kind} {op.slug or ''} was never answered"


def _done(operations: Sequence[Operation]) -> list[Operation]:
    return [op for op in operations if op.outcome is Outcome.DONE]


def _by_slug(operations: Sequence[Operation] | Iterator[Operation]) -> dict[str, list[Operation]]:
    grouped: dict[str, list[Operation]] = defaultdict(list)
    for op in operations:
        if op.slug is not None:
            grouped[op.slug].append(op)
    return grouped


def _ids(operations: Sequence[Operation]) -> str:
    return ", ".join(op.intent.id for op in operations)
