"""
The `hopgate` command.

Bodies import what they need when they run: `hopgate --help` loads neither a server nor a
driver, and Robyn (which reads the command line when imported) is loaded by workers only.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from app import __version__
from app import settings as environment
from app.domain.errors import HopgateError
from app.settings import Settings

app = typer.Typer(
    name="hopgate",
    help="A URL shortener and redirect gateway. Settings are environment variables: HOPGATE_...",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
keys_app = typer.Typer(help="Make, list and revoke API keys.", no_args_is_help=True)
links_app = typer.Typer(help="Make, look up, import and export links.", no_args_is_help=True)
dlq_app = typer.Typer(help="List, replay and drop dead letters.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")
app.add_typer(links_app, name="links")
app.add_typer(dlq_app, name="dlq")

T = TypeVar("T")


def main() -> None:
    """Run the command; what goes wrong is one line, not a traceback."""
    try:
        app()
    except HopgateError as error:
        _fail(str(error))
    except OSError as error:
        with suppress(OSError):
            sys.stdout.close()  # what is left in its buffer would fail again at exit, with a traceback
        reason = error.strerror or str(error) or type(error).__name__
        _fail(f"{error.filename}: {reason}" if error.filename is not None else reason)
    except UnicodeEncodeError as error:
        refused = error.object[error.start : error.end]
        _fail(f"{refused!r} cannot be encoded as {error.encoding}")
    except KeyboardInterrupt:
        _fail("interrupted")


def _fail(message: str) -> NoReturn:
    print(f"hopgate: {message}", file=sys.stderr)
    raise SystemExit(1)


def _say(message: str = "") -> None:
    print(message, flush=True)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def _prepared(settings: Settings) -> Settings:
    """Bring an embedded store into being; a PostgreSQL one is migrated by its operator."""
    if settings.embedded:
        from app.migrations import migrate as apply

        try:
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            _fail(f"cannot make {settings.data_dir}: {error.strerror} (set HOPGATE_DATA_DIR)")
        apply(settings.store_url)
    return settings


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,  # noqa: FBT002
) -> None:
    if version:
        _say(f"hopgate {__version__}")
        raise typer.Exit


@app.command()
def serve() -> None:
    """Serve redirects and the API."""
    from app.commands import serve as server

    settings = _prepared(environment.load())
    lock = server.check(settings)
    try:
        if settings.embedded:
            _say(_run(server.quickstart(settings)))
        server.serve(settings)
    finally:
        if lock is not None:
            lock.close()


@app.command()
def worker() -> None:
    """Consume cache events and relay the outbox. Run at least one beside the gateways."""
    from app.telemetry import logs
    from worker.main import run

    settings = environment.load()
    if settings.embedded:
        _fail("an embedded gateway is its own worker; set the three service URLs to run one apart")
    logs.configure(settings.log_level)
    run(settings)


@app.command()
def migrate() -> None:
    """Bring the database to the schema of this version."""
    from app.migrations import migrate as apply

    settings = environment.load()
    applied = apply(settings.store_url) if not settings.embedded else 0
    if settings.embedded:
        _prepared(settings)
    _say(
        f"{applied} migration{'' if applied == 1 else 's'} applied" if applied else "the schema is up to date"
    )


@app.command()
def doctor() -> None:
    """Name what is reachable, what is not, and what to do about it."""
    from app.commands.doctor import examine

    settings = environment.load()
    findings = _run(examine(settings))
    for finding in findings:
        _say(f"{'ok ' if finding.healthy else 'BAD'}  {finding.name:<10} {finding.detail}")
        if finding.remedy:
            _say(f"     {'':<10} → {finding.remedy}")
    if not all(finding.healthy for finding in findings):
        raise SystemExit(1)


@app.command()
def check(
    repair: Annotated[  # noqa: FBT002
        bool, typer.Option("--repair", help="Drop what is wrong, and have every cache read it again.")
    ] = False,
) -> None:
    """Compare every cached entry with the store; the exit code is 1 if one is wrong and not repaired."""
    from app.commands import check as checking

    wrong = _run(checking.check(environment.load(), repair=repair, say=_say))
    if wrong and not repair:
        raise SystemExit(1)


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What the key is for; shown in listings.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            help="links:read, links:write, cache:write or admin; repeat for several. Default: all links:*."
        ),
    ] = None,
) -> None:
    """Make an API key. It is shown once and stored only as a hash."""
    from app.bootstrap import open_store, utc_now
    from app.service import keys

    settings = _prepared(environment.load())
    scopes = keys.parse_scopes(scope or [keys.Scope.LINKS_READ, keys.Scope.LINKS_WRITE])

    async def work() -> str:
        import secrets

        text, record = keys.issue(name, scopes, now=utc_now(), choice=secrets.choice)
        async with open_store(settings) as store:
            await store.add_key(record)
        return text

    _say(_run(work()))


@keys_app.command("list")
def keys_list() -> None:
    """List all API keys, revoked ones included; never their secrets."""
    from app.bootstrap import open_store

    settings = _prepared(environment.load())

    async def work() -> None:
        async with open_store(settings) as store:
            for key in await store.list_keys():
                state = f"revoked {key.revoked_at:%Y-%m-%d}" if key.revoked_at else "valid"
                scopes = ",".join(sorted(key.scopes))
                _say(f"{key.key_id}  {key.created_at:%Y-%m-%d}  {state:<18}  {scopes}  {key.name}")

    _run(work())


@keys_app.command("revoke")
def keys_revoke(key_id: Annotated[str, typer.Argument(help="The part after the first underscore.")]) -> None:
    """Revoke an API key; every gateway refuses it within a second."""
    from app.bootstrap import open_store, utc_now

    settings = _prepared(environment.load())

    async def work() -> bool:
        async with open_store(settings) as store:
            return await store.revoke_key(key_id, now=utc_now())

    if not _run(work()):
        _fail(f"there is no key {key_id}")
    _say(f"{key_id} is revoked")


@links_app.command("create")
def links_create(
    long_url: Annotated[str, typer.Argument(help="Where the link leads.")],
    slug: Annotated[str | None, typer.Option(help="Instead of a random one.")] = None,
    title: Annotated[str, typer.Option(help="For people.")] = "",
    redirect_code: Annotated[int, typer.Option(help="301, 302, 307 or 308.")] = 302,
    expires_at: Annotated[str | None, typer.Option(help="ISO 8601 with time zone.")] = None,
) -> None:
    """Make a link and print its short URL."""
    from app.bootstrap import open_links
    from app.domain.link import LinkFields
    from app.service.links import Created

    settings = _prepared(environment.load())
    fields = LinkFields(
        long_url=long_url, title=title, redirect_code=redirect_code, expires_at=_time(expires_at)
    )

    async def work() -> str:
        async with open_links(settings) as links:
            outcome = await links.create(fields, custom_slug=slug)
            if not isinstance(outcome, Created):
                _fail(f"the slug {slug} is taken")
            return outcome.link.slug

    _say(f"{settings.public_url}/{_run(work())}")


@links_app.command("get")
def links_get(slug: Annotated[str, typer.Argument(help="The last part of the short URL.")]) -> None:
    """Print a link as JSON."""
    import msgspec

    from app.bootstrap import open_links
    from app.domain.link import Link, Slug
    from app.domain.slug import is_well_formed
    from app.service.links import Removed
    from app.web.schemas import link_document

    settings = _prepared(environment.load())

    async def work() -> Link | Removed | None:
        async with open_links(settings) as links:
            return await links.get(Slug(slug)) if is_well_formed(slug) else None

    link = _run(work())
    if not isinstance(link, Link):
        _fail(f"{slug} was removed" if link else f"there is no link {slug}")
    _say(msgspec.json.format(msgspec.json.encode(link_document(link, settings.public_url))).decode())


@links_app.command("import")
def links_import(
    file: Annotated[
        Path, typer.Argument(help="One URL a line, or CSV with a header.", exists=True, dir_okay=False)
    ],
    output: Annotated[
        Path | None, typer.Option(help="Write line, slug, short and long URL here, as CSV.")
    ] = None,
    refused: Annotated[
        Path | None, typer.Option(help="Write what was refused, and why, here, as CSV.")
    ] = None,
) -> None:
    """
    Import links in bulk. Interrupted? Run it again: it goes on where it stopped.

    The same file imported again stores nothing twice.
    """
    from app.commands.import_links import import_file

    settings = _prepared(environment.load())
    _run(import_file(settings, file, output, refused))


@links_app.command("export")
def links_export(
    output: Annotated[Path | None, typer.Option(help="The file to write. Default: standard output.")] = None,
    form: Annotated[
        str, typer.Option("--format", help="jsonl (every field) or csv (to be imported again).")
    ] = "jsonl",
) -> None:
    """Write every link that is not removed, newest first."""
    from app.commands.export_links import ExportFormat, export_links

    if form not in list(ExportFormat):
        _fail(f"{form!r} is neither jsonl nor csv")
    _run(export_links(_prepared(environment.load()), output, ExportFormat(form)))


@dlq_app.command("list")
def dlq_list(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many to show, oldest first.")] = 20,
) -> None:
    """Show the dead letters: events that failed six times, or that nobody can read."""
    from app.commands import dead_letters

    _run(dead_letters.show(environment.load(), limit, _say))


@dlq_app.command("replay")
def dlq_replay(
    limit: Annotated[int | None, typer.Option(min=1, help="How many, oldest first. Default: all.")] = None,
) -> None:
    """Give dead letters to the workers again. Those that nobody can read stay."""
    from app.commands import dead_letters

    replayed, unreadable = _run(dead_letters.replay(environment.load(), limit))
    _say(f"{replayed} replayed" + (f", {unreadable} left: they cannot be read" if unreadable else ""))


@dlq_app.command("drop")
def dlq_drop(
    unreadable: Annotated[  # noqa: FBT002
        bool, typer.Option("--unreadable", help="Only those that nobody can read.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,  # noqa: FBT002
) -> None:
    """Forget dead letters for good. `hopgate check --repair` mends what they would have."""
    from app.commands import dead_letters

    if not yes and not typer.confirm("Forget them for good?"):
        _fail("nothing was dropped")
    _say(f"{_run(dead_letters.drop(environment.load(), unreadable_only=unreadable))} dropped")


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        _fail(f"{text!r} is not a time such as 2030-01-31T12:00:00Z")


if __name__ == "__main__":
    main()
