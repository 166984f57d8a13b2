"""`hopgate webhooks`: where events of links are sent, and what became of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

from app.commands import console
from app.commands.help import Group

if TYPE_CHECKING:
    from app.service.webhooks import Webhooks

T = TypeVar("T")

app = Group(help="Send what happens to links to other servers.")

Id = Annotated[str, typer.Argument(metavar="ID", help="The id of the webhook; `list` shows it.")]


@app.command("add")
def add(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where events are sent.")],
    *,
    name: Annotated[str, typer.Option(metavar="TEXT", help="What it is for.")] = "",
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="KIND", help="Only these events; repeat for several."),
    ] = None,
    domain: Annotated[str | None, typer.Option(metavar="HOST", help="Only of links of this domain.")] = None,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Only of links with this tag.")] = None,
    json: console.Json = False,
) -> None:
    """Send events to a URL. Prints the secret that signs them, which is shown once."""
    from app.web.webhooks_api import new_webhook_document

    made = _run(lambda hooks: hooks.add(url, name=name, kinds=kind or (), domain=domain, tag=tag))
    if json:
        console.show(new_webhook_document(made))
    else:
        console.say(f"{made.webhook.webhook_id}  {made.secret}")


@app.command("list")
def list_(*, json: console.Json = False) -> None:
    """List the webhooks, oldest first."""
    from app.web.webhooks_api import webhook_document

    found = _run(lambda hooks: hooks.all())
    if json:
        console.show([webhook_document(one) for one in found])
        return
    for one in found:
        gone = ": the receiver answers 410" if one.disabled_reason is not None else ""
        console.say(f"{one.webhook_id}  {one.url}{'' if one.enabled else f'  (disabled{gone})'}")


@app.command("remove")
def remove(webhook_id: Id, *, json: console.Json = False) -> None:
    """Remove a webhook and what was to be delivered."""
    if not _run(lambda hooks: hooks.remove(webhook_id)):
        _fail_unknown(webhook_id)
    if json:
        console.show({"webhook_id": webhook_id, "removed": True})
    else:
        console.say(f"{webhook_id} is removed")


@app.command("deliveries")
def deliveries(
    webhook_id: Id,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many, the latest first.")] = 20,
    json: console.Json = False,
) -> None:
    """List what was and will be delivered, latest event first."""
    from app.web.webhooks_api import delivery_document

    found = _run(lambda hooks: hooks.deliveries(webhook_id, before=None, limit=limit))
    if found is None:
        _fail_unknown(webhook_id)
    documents = [delivery_document(one) for one in found]
    if json:
        console.show(documents)
        return
    for one in documents:
        why = one.problem or (f"answer {one.status}" if one.status else "not attempted")
        console.say(f"{one.created_at:%Y-%m-%d %H:%M}  {one.state}  {one.kind}  {one.slug}  {why}")


@app.command("replay")
def replay(
    webhook_id: Id,
    *,
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="TIME", help="Deliver all events from this time on again; UTC without an offset."
        ),
    ] = None,
    json: console.Json = False,
) -> None:
    """Deliver again what is dead, or the events from a time on."""
    replayed: int | None = None
    if since is None:
        replayed = _run(lambda hooks: hooks.replay_dead(webhook_id))
        is_known = replayed is not None
    else:
        at = since if since.tzinfo else since.replace(tzinfo=UTC)
        is_known = _run(lambda hooks: hooks.replay_since(webhook_id, at))
    if not is_known:
        _fail_unknown(webhook_id)
    if json:
        console.show({"replayed": replayed})
    elif replayed is None:
        console.say(f"the events from {since} on are delivered again")
    else:
        console.say(f"{replayed:,} dead deliver{'y is' if replayed == 1 else 'ies are'} made again")


@app.command("test")
def send_test(webhook_id: Id, *, json: console.Json = False) -> None:
    """Send a test message, once. Exits with 1 if it was not taken."""
    tested = _run(lambda hooks: hooks.test(webhook_id))
    if tested is None:
        _fail_unknown(webhook_id)
    if json:
        console.show({"delivered": tested.is_delivered, "status": tested.status, "problem": tested.problem})
    else:
        console.say(f"answer {tested.status}" if tested.status else f"not delivered: {tested.problem}")
    if not tested.is_delivered:
        raise SystemExit(1)


def _run(work: Callable[[Webhooks], Awaitable[T]]) -> T:
    from app.bootstrap import open_webhooks

    settings = console.existing_store()

    async def done() -> T:
        async with open_webhooks(settings) as hooks:
            return await work(hooks)

    return console.run(done())


def _fail_unknown(webhook_id: str) -> NoReturn:
    console.fail(f"there is no webhook {webhook_id}")
