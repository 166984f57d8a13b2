"""`hopgate keys`: creates, lists and revokes API keys."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands import console
from app.commands.help import Group

if TYPE_CHECKING:
    from app.ports import ApiKey

app = Group(help="Create, list and revoke API keys.")

Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="links:read, links:write, cache:write or admin; repeat for several. "
        "Default: links:read and links:write.",
    ),
]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The purpose of the key; shown in listings.")],
    *,
    scope: Scopes = None,
    expires_in: Annotated[
        str | None, typer.Option(metavar="LIFETIME", help="Ends the key by itself: 90m, 7d. Default: never.")
    ] = None,
    json: console.Json = False,
) -> None:
    """Create an API key. It is shown once; only its hash is stored."""
    from app.bootstrap import open_store

    settings = console.existing_store()
    text, record = _issued(name, scope, expires_in)

    async def work() -> None:
        async with open_store(settings) as store:
            await store.add_key(record)

    console.run(work())
    if json:
        console.show({"key": text, **_document(record)})
    else:
        console.say(text)


@app.command("generate")
def generate(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Its purpose; not part of the key.")
    ] = "generated",
) -> None:
    """Print a key without storing it: for HOPGATE_KEY, which `hopgate serve` stores."""
    console.say(_issued(name, None)[0])


@app.command("list")
def list_(*, json: console.Json = False) -> None:
    """List all API keys, revoked ones included, without their secrets."""
    from app.bootstrap import open_store, utc_now

    settings = console.existing_store()

    async def work() -> list[ApiKey]:
        async with open_store(settings) as store:
            return list(await store.list_keys())

    found = console.run(work())
    if json:
        console.show([_document(key) for key in found])
        return
    now = utc_now()
    for key in found:
        state = _state(key, now)
        scopes = ",".join(sorted(key.scopes))
        console.say(f"{key.key_id}  {key.created_at:%Y-%m-%d}  {state:<18}  {scopes}  {key.name}")


@app.command("revoke")
def revoke(
    key_id: Annotated[
        str, typer.Argument(metavar="ID", help="The part of the key after its first underscore.")
    ],
    *,
    json: console.Json = False,
) -> None:
    """Revoke an API key; every gateway refuses it within a second."""
    from app.bootstrap import open_store, utc_now

    settings = console.existing_store()

    async def work() -> bool:
        async with open_store(settings) as store:
            return await store.revoke_key(key_id, now=utc_now())

    if not console.run(work()):
        console.fail(f"there is no key {key_id}")
    if json:
        console.show({"key_id": key_id, "revoked": True})
    else:
        console.say(f"{key_id} is revoked")


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at is None:
        return "valid"
    return f"{'expired' if key.has_expired(now) else 'until'} {key.expires_at:%Y-%m-%d}"


def _issued(name: str, scope: list[str] | None, expires_in: str | None = None) -> tuple[str, ApiKey]:
    import secrets
    from dataclasses import replace

    from app.bootstrap import utc_now
    from app.domain import lifetime
    from app.service import keys

    scopes = keys.parse_scopes(scope or [keys.Scope.LINKS_READ, keys.Scope.LINKS_WRITE])
    now = utc_now()
    text, key = keys.issue(name, scopes, now=now, choice=secrets.choice)
    return text, key if expires_in is None else replace(key, expires_at=now + lifetime.parse(expires_in))


def _document(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }
