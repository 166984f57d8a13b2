"""
The `hopgate` command.

Commands import what they need when they run: `hopgate --help` loads neither a server nor a
driver, and Robyn (which reads the command line at import) is loaded by gateway workers only.
"""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app import __version__
from app.commands import (
    blocks,
    console,
    dlq,
    domains,
    inspection,
    keys,
    link_aliases,
    link_history,
    link_stats,
    links,
    list_links,
    qr_code,
    total_stats,
    transfer,
    webhooks,
)
from app.commands.help import Group
from app.domain.errors import HopgateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from app.settings import Settings

# New objects between two searches of the garbage collector for cycles; 700 is Python's own number.
_COLLECTS_AFTER = 10_000

app = Group(
    name="hopgate",
    help="A URL shortener and redirect gateway. Settings are environment variables named HOPGATE_..., or "
    "stand in .env or hopgate.toml in the data folder; docs/operations.md lists them.",
    pretty_exceptions_enable=False,
)
link_aliases.declare(links.app)
link_stats.declare(links.app)
link_history.declare(links.app)
qr_code.declare(links.app)
list_links.declare(links.app)
transfer.declare(links.app)
total_stats.declare(app)
app.add_typer(blocks.app, name="blocks")
app.add_typer(domains.app, name="domains")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(keys.app, name="keys")
app.add_typer(links.app, name="links")
app.add_typer(dlq.app, name="dlq")


@cache
def runner() -> Callable[[], object]:
    """Return what runs the command that `sys.argv` names."""
    return typer.main.get_command(app)


def main() -> None:
    """Run the command; an error is printed as one line, without a traceback."""
    # Imports create what lives to the end: looking for cycles in it so often takes a tenth of a start.
    gc.set_threshold(_COLLECTS_AFTER)
    _need_standard_error()
    try:
        runner()()
    except SystemExit as ended:
        if not ended.code:
            console.print_store()
        raise
    except HopgateError as error:
        console.fail(str(error))
    except ImportError as error:
        from app.commands import missing

        console.fail(missing.described(error), names_store=False)
    except OSError as error:
        with suppress(OSError, AttributeError):  # there is none if it was closed
            sys.stdout.close()  # flushing its buffer at exit would fail again, with a traceback
        reason = error.strerror or str(error) or type(error).__name__
        console.fail(
            f"{error.filename}: {reason}" if error.filename is not None else reason, names_store=False
        )
    except UnicodeEncodeError as error:
        refused = error.object[error.start : error.end]
        console.fail(f"{refused!r} cannot be encoded as {error.encoding}", names_store=False)
    except KeyboardInterrupt:
        console.fail("interrupted", names_store=False)
    except Exception as error:
        if os.environ.get("HOPGATE_LOG_LEVEL", "").lower() == "debug":
            raise
        # Its text may quote a URL, with the password.
        console.fail(f"unexpected {type(error).__name__}; HOPGATE_LOG_LEVEL=debug shows where")


def _need_standard_error() -> None:
    """Where it is closed, `print` would write to standard output what is not part of the result."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 - as long as the process


def _make_folder(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        console.fail(f"cannot create {settings.data_dir}: {error.strerror} (set HOPGATE_DATA_DIR)")


def _service(settings: Settings) -> None:
    """Prepare the log of a process that serves or works, and log its store and what is dangerous."""
    import logging

    from app import settings as environment
    from app.bootstrap import reports, tracing
    from app.telemetry import logs

    logs.configure(settings.log_level)
    log = logging.getLogger("app.cli")
    log.info("store: %s", settings.store_name)
    try:
        asked = tracing.wanted()
    except tracing.NotInstalled as error:
        log.warning("%s", error)
    else:
        if asked is not None:
            ratio = asked.sampling.ratio
            log.info("traces of %g of all requests, and of slow and failed ones: %s", ratio, asked.endpoint)
    try:
        reported = reports.wanted()
    except tracing.NotInstalled as error:
        log.warning("%s", error)
    else:
        if reported is not None:
            log.info("unexpected errors are reported to %s", reported.endpoint)
    for warning in environment.warnings(settings):
        log.warning("%s", warning)


@app.callback(invoke_without_command=True)
def _options(
    *,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        console.say(f"hopgate {__version__}")
        raise typer.Exit


@app.command()
def serve() -> None:
    """
    Serve redirects and the API.

    Of the settings, HOPGATE_BIND is where it listens, HOPGATE_BASE_URL what short links start with and
    HOPGATE_DATA_DIR where its data is. HOPGATE_DATABASE_URL, HOPGATE_REDIS_URL and HOPGATE_AMQP_URL
    replace the embedded store. docs/operations.md lists all of them.
    """
    from app.bootstrap import check_servers, check_settings
    from app.commands import running
    from app.commands import serve as server
    from app.commands.front_sockets import has_front
    from app.migrations import migrate as apply

    settings = _load()
    # In the parent process: here an error is one line, in a worker it would be one for each restart.
    console.run(check_settings(settings))
    check_servers(settings)
    server.check_pages(settings)
    with_front = has_front(settings)
    _make_folder(settings)
    server.check_address(settings)
    lock = running.announce(settings)
    try:
        if settings.embedded:
            apply(settings.store_url)
        _service(settings)
        greeting = console.run(server.first_start(settings))
        if greeting and sys.stdout is not None:
            console.say(greeting)
        server.serve(settings, with_front=with_front)
    finally:
        if lock is not None:
            lock.close()


@app.command()
def worker() -> None:
    """Consume cache events and clicks, and relay the outbox. Run at least one beside the gateways."""
    from app.bootstrap import check_servers, check_settings
    from app.commands.worker import run

    settings = _load()
    if settings.embedded:
        console.fail("an embedded gateway is its own worker; set the three service URLs to run workers")
    console.run(check_settings(settings))
    check_servers(settings)
    _service(settings)
    run(settings)


@app.command()
def migrate(
    *,
    to: Annotated[
        int | None,
        typer.Option(metavar="N", help="Go back to schema N, of an earlier release, with all stopped."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="With --to: do not ask for confirmation.")] = False,
    json: console.Json = False,
) -> None:
    """
    Migrate the database to the schema of this version; create it if it is embedded.

    Names the links that are hidden by a page of this version.
    """
    from app.bootstrap import check_servers
    from app.commands.shadowed import told
    from app.migrations import migrate as apply

    settings = _load()
    console.use_store(settings)
    if to is not None:
        _roll_back(settings, to, yes=yes, json=json)
        return
    if settings.embedded:
        _make_folder(settings)
    check_servers(settings)
    applied = apply(settings.store_url)
    if json:
        console.show({"applied": applied})
    elif applied:
        console.say(f"{applied} migration{'' if applied == 1 else 's'} applied")
    else:
        console.say("the schema is up to date")
    for line in console.run(told(settings)):
        console.note(line)


def _roll_back(settings: Settings, to: int, *, yes: bool, json: bool) -> None:
    from app.bootstrap import check_servers
    from app.commands import roll_back as command

    check_servers(settings)
    for line in command.losses(settings, to):
        console.note(line)
    if not yes and not console.agrees(f"Go back to schema {to}, and lose what these lines say?"):
        console.fail("nothing was changed (with --yes it does not ask)")
    undone = command.roll_back(settings, to, console.note)
    if json:
        console.show({"undone": undone, "schema": to})
    else:
        console.say(f"{undone} migration{'' if undone == 1 else 's'} undone: the schema is {to}")


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write; it must not exist.", dir_okay=False)],
) -> None:
    """Copy the store to a file, also while gateways serve. PostgreSQL: by pg_dump."""
    from app.commands import backup as command

    command.backup(console.settings(), file, console.note)


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(help="A file of hopgate backup.", exists=True, dir_okay=False)],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Replace the store by a backup, and empty the cache. Stop gateways and workers first."""
    from app.commands import backup as command

    settings = console.settings()
    if not yes and not console.agrees("Replace every link in the store by the backup?"):
        console.fail("nothing was restored (with --yes it does not ask)")
    command.restore(settings, file, console.note)


@app.command("console")
def open_console(
    *,
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="What the session may do; repeat for several. Default: all."),
    ] = None,
    json: console.Json = False,
) -> None:
    """Print a link that signs in to the console once, within ten minutes, with a key of its own."""
    from app.bootstrap import open_store
    from app.commands.open_console import sign_in_url
    from app.service.keys import ALL_SCOPES, parse_scopes

    settings = console.existing_store()
    if settings.console == "off":
        console.fail("HOPGATE_CONSOLE is off: there is no console", names_store=False)
    scopes = parse_scopes(scope) if scope else ALL_SCOPES

    async def work() -> str:
        async with open_store(settings) as store:
            return await sign_in_url(settings, store, scopes)

    url = console.run(work())
    if json:
        console.show({"url": url})
    else:
        console.say(url)


inspection.declare(app)


def _load() -> Settings:
    from app import settings as environment

    return environment.load()


if __name__ == "__main__":
    main()
