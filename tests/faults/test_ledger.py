"""The ledger reports each kind of violation, and none for a correct history."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from app.domain.link import Link, LinkFields, Resolution, Slug
from tests.conftest import NOW
from tests.faults.harness.journal import Intent, JournalWriter, Kind, Operation, Reply, joined, read
from tests.faults.harness.ledger import FinalState, Shown, violations


def url(name: str) -> str:
    return f"https://example.com/{name}"


def op(name: str, kind: Kind, slug: str | None = None, *, at: float = 1.0, status: int = 200, **reply):
    """An operation sent at *at* with a reply 0.1 s later; without a reply if the status is 0."""
    target = url(name) if kind in (Kind.CREATE, Kind.EDIT) else None
    intent = Intent(id=name, kind=kind, slug=slug, url=target, sent_at=at, due_at=at)
    if status == 0:
        return Operation(intent)
    return Operation(intent, (Reply(id=name, status=status, at=at + 0.1, **reply),))


def create(name: str = "c1", slug: str = "abc", **more):
    return op(name, Kind.CREATE, **{"status": 201, "version": 1, "at": 0.0, **more}, slug=slug)


def edit(name: str, version: int | None = None, **more):
    return op(name, Kind.EDIT, "abc", version=version, **more)


def remove(name: str = "d1", **more):
    return op(name, Kind.DELETE, "abc", **{"status": 204, **more})


def visit(status: int = 302, location: str | None = None, *, at: float = 5.0, slug: str = "abc"):
    return op(f"v{status}", Kind.VISIT, slug, at=at, status=status, location=location)


def link(
    target: str = "c1", version: int = 1, *, slug: str = "abc", title: str = "c1", removed: bool = False
):
    fields = LinkFields(long_url=url(target), title=title)
    return Link(
        slug=Slug(slug),
        fields=fields,
        version=version,
        created_at=NOW,
        updated_at=NOW,
        removed_at=NOW if removed else None,
    )


def final(*links: Link, **more) -> FinalState:
    """A quiescent state with *links*, cached and served as stored."""
    stored = {one.slug: one for one in links}
    cached = {one.slug: Resolution.of(one) for one in links}
    shown = {
        one.slug: Shown(302, one.fields.long_url) if one.removed_at is None else Shown(410) for one in links
    }
    return FinalState(**{"links": stored, "cached": cached, "shown": {"a": shown}, **more})


def rules(history, state, **more) -> list[str]:
    return [violation.rule for violation in violations(history, state, **more)]


GOOD = {
    "nothing happened": ([], final()),
    "a create": ([create()], final(link())),
    "a create, nothing cached": ([create()], final(link(), cached={})),
    "an edit": ([create(), edit("e1", 2)], final(link("e1", 2))),
    "two edits, replies in the other order": (
        [create(), edit("e1", 3), edit("e2", 2)],
        final(link("e1", 3)),
    ),
    "a removal": ([create(), remove()], final(link("c1", 2, removed=True))),
    "an unknown create that is stored": ([create(status=0)], final(link())),
    "an unknown create that is not stored": ([create(status=0)], final()),
    "a failed create (503) that is stored": ([create(status=503)], final(link())),
    "an unknown edit that took effect": ([create(), edit("e1", status=0)], final(link("e1", 2))),
    "an unknown edit without effect": ([create(), edit("e1", status=0)], final(link())),
    "an unknown edit below a known one": (
        [create(), edit("e1", status=0), edit("e2", 3)],
        final(link("e2", 3)),
    ),
    "an unknown edit above a known one": (
        [create(), edit("e1", status=503), edit("e2", 2)],
        final(link("e1", 3)),
    ),
    "an unknown removal that took effect": (
        [create(), remove(status=0)],
        final(link("c1", 2, removed=True)),
    ),
    "a refused create": ([create(status=409)], final()),
    "a refused edit": ([create(), edit("e1", status=412)], final(link())),
    "a visit to an older target": (
        [create(), edit("e1", 2, at=1), visit(302, url("c1"), at=5)],
        final(link("e1", 2)),
    ),
    "a visit to the target of a pending edit": (
        [create(), edit("e1", status=0, at=4.9), visit(302, url("e1"), at=5)],
        final(link("c1")),
    ),
    "410 during a pending removal": (
        [create(), remove(status=503, at=4.9), visit(410, at=5)],
        final(link()),
    ),
    "404 before the acknowledgement": ([create(at=4.95), visit(404, at=5)], final(link())),
    "503": ([create(), visit(503)], final(link())),
    "a link of another epoch": (
        [create()],
        final(link(), cached={"abc": msgspec.structs.replace(Resolution.of(link("e1", 5)), epoch=7)}),
    ),
    "an absent slug cached as absent": ([], final(cached={"xyz": Resolution.absent(Slug("xyz"))})),
}

BAD = {
    "an acknowledged create is missing": ("I1", [create()], final()),
    "an acknowledged edit is missing": ("I1", [create(), edit("e1", 2)], final(link())),
    "an acknowledged edit was reverted": ("I1", [create(), edit("e1", 2)], final(link("c1", 2))),
    "an older edit overwrote an acknowledged one": (
        "I1",
        [create(), edit("e1", 2), edit("e2", 3)],
        final(link("e1", 3)),
    ),
    "an acknowledged removal is missing": ("I1", [create(), remove()], final(link())),
    "a removed link came back": ("I1", [create(), remove()], final(link("c1", 3))),
    "two edits got the same version": (
        "I1",
        [create(), edit("e1", 2), edit("e2", 2)],
        final(link("e2", 3)),
    ),
    "a refused create is stored": ("I2", [create(status=409)], final(link())),
    "a refused edit is stored": ("I1", [create(), edit("e1", status=412)], final(link("e1", 2))),
    "a refused removal took effect": (
        "I2",
        [create(), remove(status=412)],
        final(link("c1", 2, removed=True)),
    ),
    "a write without a request": ("I2", [create()], final(link("c1", 2))),
    "a link without a request": ("I2", [], final(link())),
    "one create stored twice": ("I2", [create()], final(link(), link(slug="abd"))),
    "an unknown create stored twice": ("I2", [create(status=0)], final(link(), link(slug="abd"))),
    "one slug for two creates": ("I2", [create(), create("c2")], final(link())),
    "the link of another create": ("I2", [create(), create("c2", "abd", status=0)], final(link(title="c2"))),
    "the outbox holds a change": ("I3", [create()], final(link(), outbox=1)),
    "a queue holds a message": ("I3", [create()], final(link(), waiting=1)),
    "a dead letter that was not injected": ("I3", [create()], final(link(), dead=1)),
    "an older version is cached": (
        "I4",
        [create(), edit("e1", 2)],
        final(link("e1", 2), cached={"abc": Resolution.of(link())}),
    ),
    "a removed link is cached": (
        "I4",
        [create(), remove()],
        final(link("c1", 2, removed=True), cached={"abc": Resolution.of(link())}),
    ),
    "the right version is cached with a wrong target": (
        "I4",
        [create()],
        final(link(), cached={"abc": msgspec.structs.replace(Resolution.of(link()), long_url=url("x"))}),
    ),
    "a link is cached as absent": (
        "I4",
        [create()],
        final(link(), cached={"abc": Resolution.absent(Slug("abc"))}),
    ),
    "an unknown link is cached": ("I4", [], final(cached={"abc": Resolution.of(link())})),
    "a gateway serves an old target": (
        "I5",
        [create()],
        final(link(), shown={"b": {"abc": Shown(302, url("x"))}}),
    ),
    "a gateway serves 404": ("I5", [create()], final(link(), shown={"b": {"abc": Shown(404)}})),
    "a visit to a target it never had": ("I5", [create(), visit(302, url("x"))], final(link())),
    "a visit to the target of a later edit": (
        "I5",
        [create(), edit("e1", 2, at=9), visit(302, url("e1"), at=5)],
        final(link("e1", 2)),
    ),
    "a visit to the target of a refused edit": (
        "I5",
        [create(), edit("e1", status=412), visit(302, url("e1"))],
        final(link()),
    ),
    "404 after the acknowledgement": ("I5", [create(), visit(404)], final(link())),
    "an edit gets 404": ("I5", [create(), edit("e1", status=404)], final(link())),
    "410 without a removal": ("I5", [create(), visit(410)], final(link())),
    "500": ("I8", [create(), visit(500)], final(link())),
    "a request without a response": (
        "I8",
        [create(), replace(visit(), replies=(Reply(id="v", status=0, at=9, error="TimeoutError"),))],
        final(link()),
    ),
}


@pytest.mark.parametrize(("history", "state"), GOOD.values(), ids=GOOD.keys())
def test_correct_history_has_no_violation(history, state):
    assert violations(history, state) == []


@pytest.mark.parametrize(("rule", "history", "state"), BAD.values(), ids=BAD.keys())
def test_violation_is_reported_by_rule(rule, history, state):
    assert rule in rules(history, state)


def test_injected_poison_is_expected_in_dead_letters():
    assert rules([], final(dead=3), poison=3) == []
    assert rules([], final(dead=2), poison=3) == ["I3"]


def test_create_retry_must_give_the_same_slug():
    """An unknown outcome, then an acknowledgement: one operation, one link."""
    intent = Intent(id="c1", kind=Kind.CREATE, url=url("c1"), key="k")
    again = [Reply(id="c1", status=0, at=1), Reply(id="c1", status=201, at=2, slug="abc", version=1)]

    assert rules(joined([intent], again), final(link())) == []
    later = Reply(id="c1", status=201, at=3, slug="abc", version=2, replayed=True)
    edited = Operation(
        Intent(id="e1", kind=Kind.EDIT, slug="abc", url=url("e1")),
        (Reply(id="e1", status=200, at=2.5, version=2),),
    )
    assert rules([*joined([intent], [*again, later]), edited], final(link("e1", 2))) == []
    twin = Reply(id="c1", status=201, at=3, slug="abd", version=1)
    assert "I2" in rules(joined([intent], [*again, twin]), final(link()))


def test_replies_of_several_files_are_in_time_order(tmp_path):
    first, again = Reply(id="c1", status=503, at=1), Reply(id="c1", status=201, at=2, slug="abc", version=1)
    for name, entries in (("a", [again]), ("b", [create().intent, first])):
        with JournalWriter(tmp_path / name) as journal:
            for entry in entries:
                journal.write(entry)

    [op] = read([tmp_path / "a", tmp_path / "b"])

    assert op.replies == (first, again)


def test_journal_without_its_incomplete_last_line_is_read(tmp_path):
    path = tmp_path / "journal"
    done, lost = create(), edit("e1", status=0)
    with JournalWriter(path) as journal:
        journal.write(done.intent)
        journal.write(done.replies[0])
        journal.write(lost.intent)
    with path.open("ab") as file:
        file.write(b'{"what": "Reply", "id": "e1", "sta')

    assert read([path]) == [done, lost]
