"""`hopgate keys`: creates, lists, rotates and revokes API keys."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands import console
from app.commands.help import Group

if TYPE_CHECKING:
    from collections.abc import Iterator

    from app.domain.domains import DomainIndex
    from app.ports import ApiKey
    from app.settings import Settings

app = Group(help="Create, list, rotate and revoke API keys.")

Scopes = Annotated[
    list[str] | None,
    typer.Option(
        "--scope",
        metavar="SCOPE",
        help="stats:read, links:read, links:write, cache:write or admin; repeat for several. "
        "Default: links:read and links:write.",
    ),
]


KeyId = Annotated[str, typer.Argument(metavar="ID", help="The part of the key after its first underscore.")]


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The purpose of the key; shown in listings.")],
    *,
    scope: Scopes = None,
    expires_in: Annotated[
        str | None, typer.Option(metavar="LIFETIME", help="Ends the key by itself: 90m, 7d. Default: never.")
    ] = None,
    own_links: Annotated[
        bool, typer.Option("--own-links", help="The key reaches the links that it owns, and no others.")
    ] = False,
    domain: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="The key reaches links of this domain; repeat for several."),
    ] = None,
    allow_address: Annotated[
        list[str] | None,
        typer.Option(metavar="NETWORK", help="Where it may be used from: 10.0.0.0/8; repeat for several."),
    ] = None,
    rate_limit: Annotated[
        str | None, typer.Option(metavar="RATE", help="In place of HOPGATE_LIMIT_API: 100 per minute.")
    ] = None,
    json: console.Json = False,
) -> None:
    """Create an API key. It is shown once; only its hash is stored."""
    from app.adapters.native_limiter import read_own_rate
    from app.bootstrap import open_store
    from app.domain.domains import DomainIndex
    from app.service.key_restrictions import Restrictions, restricted

    settings = console.existing_store()
    text, record = _issued(name, scope, expires_in)

    async def work() -> dict[str, Any]:
        async with open_store(settings) as store:
            domains = DomainIndex(settings.public_url, await store.domains())
            ids = [domains.served(host, "--domain").domain_id for host in domain or ()]
            wanted = Restrictions(
                own_links=own_links,
                domains=frozenset(ids) if domain else None,
                allowed_addresses=allow_address or (),
                rate_limit=rate_limit,
            )
            key = restricted(record, wanted, read_rate=read_own_rate)
            await store.add_key(key)
            return _document(key, domains)

    document = console.run(work())
    if json:
        console.show({"key": text, **document})
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
    from app.domain.domains import DomainIndex
    from app.web.keys_api import KeyDocument

    settings = console.existing_store()

    async def work() -> tuple[list[ApiKey], DomainIndex]:
        async with open_store(settings) as store:
            domains = DomainIndex(settings.public_url, await store.domains())
            return list(await store.list_keys()), domains

    keys, domains = console.run(work())
    found = [KeyDocument(**_document(key, domains)) for key in keys]
    if json:
        console.show(found)
        return
    now = utc_now()
    for key in found:
        console.say(line(key, now))


def line(key: Any, now: datetime) -> str:
    """Return *key*, as the API shows it, as people read it."""
    scopes = ",".join(sorted(key.scopes))
    used = "not used" if key.last_used_at is None else f"used {key.last_used_at:%Y-%m-%d}"
    limits = "".join(f"  ({one})" for one in _restrictions(key))
    state = _state(key, now)
    return f"{key.key_id}  {key.created_at:%Y-%m-%d}  {state:<18}  {used:<15}  {scopes}  {key.name}{limits}"


@app.command("rotate")
def rotate(
    key_id: KeyId,
    *,
    grace: Annotated[
        str, typer.Option(metavar="LIFETIME", help="How long the present secret counts as well: 1h, 7d or 0.")
    ] = "1d",
    json: console.Json = False,
) -> None:
    """Give an API key another secret, and print the new key once."""
    import secrets
    from datetime import timedelta

    from app.bootstrap import open_store, utc_now
    from app.domain import lifetime
    from app.domain.domains import DomainIndex
    from app.service import keys

    settings = console.existing_store()
    span = timedelta(0) if grace == "0" else lifetime.parse(grace, field="--grace")

    async def work() -> tuple[str, dict[str, Any]] | None:
        async with open_store(settings) as store:
            now = utc_now()
            current = await store.get_key(key_id)
            if current is None or not current.is_live(now):
                return None
            text, key = keys.reissue(current, choice=secrets.choice)
            old, until = current.secret_hash, now + span
            if not await store.rotate_key(key_id, old=old, new=key.secret_hash, old_until=until):
                return None
            domains = DomainIndex(settings.public_url, await store.domains())
            return text, _document(key, domains) | {"old_secret_until": until}

    done = console.run(work())
    if done is None:
        console.fail(f"there is no key {key_id} that counts")
    text, document = done
    if json:
        console.show({"key": text, **document})
    else:
        console.say(text)


@app.command("revoke")
def revoke(
    key_id: KeyId,
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


async def check_owner(settings: Settings, owner: str) -> None:
    """Check that links may be handed to the key *owner*; raises InvalidInput."""
    from app.bootstrap import open_store
    from app.service import key_management

    async with open_store(settings) as store:
        found = await store.get_key(owner)
    known = [] if found is None or found.revoked_at is not None else [owner]
    key_management.check_owner(owner, known)


def _state(key: Any, now: datetime) -> str:
    if key.revoked_at:
        return f"revoked {key.revoked_at:%Y-%m-%d}"
    if key.expires_at is None:
        return "valid"
    return f"{'expired' if key.expires_at <= now else 'until'} {key.expires_at:%Y-%m-%d}"


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


def _document(key: ApiKey, domains: DomainIndex) -> dict[str, Any]:
    from app.web.keys_api import key_values

    return key_values(key, domains)


def _restrictions(key: Any) -> Iterator[str]:
    if key.own_links:
        yield "own links"
    if key.domains is not None:
        yield f"links of {', '.join(key.domains)}"
    if key.allowed_addresses:
        yield f"from {', '.join(key.allowed_addresses)}"
    if key.rate_limit is not None:
        yield key.rate_limit
