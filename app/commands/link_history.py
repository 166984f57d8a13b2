"""`hopgate links history` and `undo`: what a link was before each change, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands import console
from app.commands.help import Group
from app.commands.links import DomainOption, SlugArgument, existing, key, show

if TYPE_CHECKING:
    from app.domain.domains import DomainIndex
    from app.ports import LinkHistory

_PAGE = 200

IfVersion = Annotated[
    int | None, typer.Option(metavar="NUMBER", help="Undo only the change that made this version.")
]


def declare(group: Group) -> None:
    """Add the commands to *group*."""
    group.command("history")(history)
    group.command("undo")(undo)


def history(
    slug: SlugArgument,
    *,
    domain: DomainOption = None,
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, help="The most to show.")] = 50,
    json: console.Json = False,
) -> None:
    """List the changes of a link, removed or not, newest first: when, by which key, and what."""
    from app.bootstrap import open_history
    from app.web.history_api import history_page

    settings = console.existing_store()

    async def work() -> tuple[list[LinkHistory], DomainIndex]:
        pages: list[LinkHistory] = []
        async with open_history(settings, "links history", is_reading=True) as (links, domains):
            name, before, left = key(domains, domain, slug), None, limit
            while name is not None and left > 0:
                page = await links.page(name, before=before, limit=min(left, _PAGE))
                if page is None:
                    break
                pages.append(page)
                before, left = page.next_before, left - len(page.changes)
                if before is None:
                    break
            return pages, domains

    pages, domains = console.run(work())
    existing(pages[0] if pages else None, slug)
    documents = [history_page(page, domains) for page in pages]
    whole = documents[0]
    whole.changes = [change for page in documents for change in page.changes]
    if json:
        whole.next_cursor = documents[-1].next_cursor
        console.show(whole)
    else:
        say(whole)


def say(whole: Any) -> None:
    """Print the history of a link, as people read it."""
    for change in whole.changes:
        console.say(
            f"{change.at:%Y-%m-%d %H:%M:%S}  version {change.version}  {change.action} by {_who(change.by)}"
        )
        after = _values(change.after)
        for name, value in _values(change.before).items():
            console.say(f"    {name}: {value} -> {after[name]}")
    console.say(f"{whole.created_at:%Y-%m-%d %H:%M:%S}  version 1  created by {_who(whole.created_by)}")


def undo(
    slug: SlugArgument,
    *,
    domain: DomainOption = None,
    if_version: IfVersion = None,
    json: console.Json = False,
) -> None:
    """Undo the last change of a link, its removal too; a second undo undoes the first."""
    from app.bootstrap import open_history
    from app.ports import AddressTaken
    from app.service.history import NothingToUndo

    settings = console.existing_store()

    async def work() -> Any:
        async with open_history(settings, "links undo") as (links, domains):
            name = key(domains, domain, slug)
            return await links.undo(name, expected_version=if_version) if name else None, domains

    outcome, domains = console.run(work())
    if isinstance(outcome, NothingToUndo):
        console.fail(f"{slug} has no change of the last {settings.undo_days} days: there is nothing to undo")
    if isinstance(outcome, AddressTaken):
        console.fail(f"a slug that {slug} had is that of another link by now: nothing was changed")
    link = existing(outcome, slug)
    if link.removed_at is None:
        show(link, domains, json=json)
    elif json:
        console.show({"slug": slug, "deleted": True})
    else:
        console.say(f"{slug} is deleted again")


def _who(name: str | None) -> str:
    return "unknown" if name is None else name


def _values(state: Any) -> dict[str, str]:
    """Return what a state names, as people read it."""
    import msgspec

    document = msgspec.to_builtins(state)
    return {name: msgspec.json.encode(value).decode() for name, value in document.items()}
