"""
The test oracle: compares the acknowledged operations with the state of a quiescent system.

I1  every acknowledged create, edit and removal is stored, at its version or a later one;
I2  no refused operation took effect, no create is stored twice, and every stored write was requested;
    an operation of unknown outcome may be stored or not;
I3  outbox and queues are empty, and the only dead letters are the injected ones;
I4  every cached entry equals the stored state;
I5  every gateway answers with the stored state, byte for byte; no visitor ever received a target
    that the link never had, a 404 for an acknowledged link, or a 410 for a link without a removal;
I8  every request was answered, and none with 500.

If I1, I3 and I4 hold, every acknowledged change reached the caches.
Resources (I7) and bounds (the rest of I8) are figures, see `figures.py`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.domain.link import Link, Resolution
from tests.faults.harness.journal import Kind, Operation, Outcome, of_kind


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold: its id, and the evidence."""

    rule: str
    what: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


@dataclass(frozen=True)
class Shown:
    """The response of a gateway to a visit."""

    status: int
    location: str | None = None
    # The error body and the latency of a failure: the deadline that expired identifies the dependency.
    why: str = field(default="", compare=False)


@dataclass(frozen=True, kw_only=True)
class FinalState:
    """The state of all servers, read from the servers themselves."""

    links: Mapping[str, Link]
    cached: Mapping[str, Resolution] = field(default_factory=dict)
    outbox: int = 0
    waiting: int = 0
    dead: int = 0
    shown: Mapping[str, Mapping[str, Shown]] = field(default_factory=dict)


def violations(history: Sequence[Operation], final: FinalState, *, poison: int = 0) -> list[Violation]:
    """Return every violation in *history* and *final*; *poison* bad messages were injected."""
    return [*violations_on_the_way(history), *violations_at_the_end(history, final, poison=poison)]


def violations_on_the_way(history: Sequence[Operation]) -> list[Violation]:
    """Return the violations that clients observed. Waiting cannot repair them."""
    return [Violation(rule, what) for rule, what in (*_visits(history), *_answered(history))]


def violations_at_the_end(
    history: Sequence[Operation], final: FinalState, *, poison: int = 0
) -> list[Violation]:
    """Return the violations in the final state."""
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
    """Compare each link whose create was acknowledged with what is stored."""
    changes = _by_slug(of_kind(history, Kind.EDIT, Kind.DELETE))
    for slug, creates in _by_slug(_done(of_kind(history, Kind.CREATE))).items():
        if len(creates) > 1:
            yield "I2", f"{slug} was assigned {len(creates)} times: {_ids(creates)}"
        link = links.get(slug)
        if link is None:
            yield "I1", f"{slug} was acknowledged ({_ids(creates)}) and is not stored"
            continue
        if link.fields.title != creates[0].intent.id:
            yield (
                "I2",
                f"{slug} was acknowledged to {_ids(creates)}, stored is the create {link.fields.title}",
            )
        yield from _stored_link(slug, link, creates[0], changes.get(slug, []))


def _stored_link(slug: str, link: Link, create: Operation, changes: Sequence[Operation]) -> _Found:
    unknown = [change for change in changes if change.outcome is Outcome.UNKNOWN]
    done = [create, *_done(changes)]
    versions = [op.version for op in done if op.version is not None]
    for version, count in Counter(versions).items():
        if count > 1:
            yield "I1", f"{slug}: version {version} was acknowledged {count} times: an edit is lost"
    least = max([len(done), *versions])
    if link.version < least:
        yield "I1", f"{slug} is stored at version {link.version}, {least} was acknowledged"
    if link.version > len(done) + len(unknown):
        yield (
            "I2",
            f"{slug} is at version {link.version} after {len(done)} known and {len(unknown)} unknown writes",
        )
    removals = of_kind(changes, Kind.DELETE)
    if _done(removals) and link.removed_at is None:
        yield "I1", f"{slug}: its removal was acknowledged, and it is stored as live"
    if link.removed_at is not None and all(op.outcome is Outcome.REFUSED for op in removals):
        yield "I2", f"{slug} is removed without a removal that took effect"
    targets = [op for op in done if op.intent.url is not None]
    last = max(targets, key=lambda op: op.version or 0)
    allowed = {op.intent.url for op in [last, *unknown]} - {None}
    if link.fields.long_url not in allowed:
        yield "I1", f"{slug} has the target {link.fields.long_url}, {last.intent.url} was acknowledged last"


def _creates(history: Sequence[Operation], links: Mapping[str, Link]) -> _Found:
    """Compare creates with the stored links; the title of a link identifies its create."""
    stored: dict[str, list[Link]] = defaultdict(list)
    for link in links.values():
        stored[link.fields.title].append(link)
    creates = {op.intent.id: op for op in of_kind(history, Kind.CREATE)}
    for title, twins in stored.items():
        if title not in creates:
            yield "I2", f"{[link.slug for link in twins]} came from {title!r}, which was never requested"
        elif len(twins) > 1:
            yield "I2", f"{title} was stored {len(twins)} times: {[link.slug for link in twins]}"
    for name, create in creates.items():
        if create.outcome is Outcome.REFUSED and name in stored:
            yield "I2", f"{name} was refused ({create.status}) and is stored"
        given = {reply.slug for reply in create.replies if reply.status == 201}
        if len(given) > 1:
            yield "I2", f"{name} was acknowledged with different slugs: {sorted(map(str, given))}"


def _waiting(final: FinalState, poison: int) -> _Found:
    if final.outbox:
        yield "I3", f"{final.outbox} changes are still in the outbox"
    if final.waiting:
        yield "I3", f"{final.waiting} messages are still in the queues"
    if final.dead != poison:
        yield "I3", f"{final.dead} dead letters, {poison} were injected"


def _cached(final: FinalState) -> _Found:
    epochs = {link.epoch for link in final.links.values()}
    for slug, resolution in final.cached.items():
        link = final.links.get(slug)
        if resolution.version > 0 and epochs and resolution.epoch not in epochs:
            continue  # of a history that the store has left: a miss to every gateway
        if link is None:
            if resolution.version != 0:
                yield "I4", f"{slug} is cached at version {resolution.version} and not stored"
        elif resolution != Resolution.of(link):
            yield "I4", f"{slug} is cached at version {resolution.version}, stored at {link.version}"


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
    """Check the responses that visitors and editors received during the run."""
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
            yield "I5", f"{visit.intent.id}: 410 for {slug}, which was not removed"
        elif visit.intent.kind is Kind.VISIT and 300 <= reply.status < 400:
            had = {create.intent.url, *(op.intent.url for op in begun)}
            if reply.location not in had:
                yield "I5", f"{visit.intent.id}: {slug} redirected to {reply.location}, which it never had"


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
