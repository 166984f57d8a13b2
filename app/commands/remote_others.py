"""`hopgate stats`, `links import` and `export`, `domains`, `keys` and `blocks` for a gateway elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hopgate_client import Domain, Hopgate, HopgateError, NotFound

from app.commands import blocks, console, domains, keys
from app.commands.export_links import for_terminal, replacing
from app.commands.import_links import opened, print_report
from app.commands.link_stats import check_forms, show_stats
from app.domain.blocks import Block, BlockKind
from app.interchange.inert import terminal_safe
from app.interchange.report import ImportReport, Reason, Summary
from app.interchange.writing import ExportFormat

# --- statistics ----------------------------------------------------------------------------


def stats(
    gateway: Hopgate,
    *,
    domain: str | None,
    tag: str | None,
    since: str | None,
    until: str | None,
    interval: str | None,
    time_zone: str | None,
    compare: bool,
    top: int,
    csv: bool,
    json: bool,
) -> None:
    """Print what visits looked like: of all links, or of those of a domain or with a tag."""
    check_forms(csv=csv, json=json)
    found = gateway.stats(
        domain=domain,
        tag=tag,
        since=console.time(since),
        until=console.time(until),
        interval=interval,
        time_zone=time_zone,
        compare=compare or None,
        top=top,
    )
    show_stats(found, csv=csv, json=json)


# --- files ---------------------------------------------------------------------------------


def export(gateway: Hopgate, *, output: Path | None, form: str) -> None:
    """Write every link that is not removed, oldest first. If it fails, *output* is what it was."""
    if form not in list(ExportFormat):
        console.fail(f"{form!r} is neither jsonl nor csv")
    done = -1 if form == ExportFormat.CSV else 0
    with replacing(output) if output is not None else nullcontext(console.file_output()) as file:
        shown = for_terminal(ExportFormat(form)) if file.isatty() else str
        for part in gateway.export_file(form="csv" if form == ExportFormat.CSV else "jsonl"):
            lines = part.splitlines(keepends=True)
            file.writelines(shown(line.decode()) for line in lines)
            done += len(lines)
        file.flush()
    console.print_store()
    console.note(f"{done:,} link{'' if done == 1 else 's'} exported")


def import_(
    gateway: Hopgate,
    *,
    file: Path,
    form: str | None,
    ignore: list[str] | None,
    domain: str | None,
    dry_run: bool,
    update: bool,
    allow_refused: bool,
    json: bool,
) -> None:
    """Import links from a file. Exits with 1 if a row was refused."""
    with opened(file) as (source, _):
        try:
            done = gateway.import_file(
                source,
                form=form,
                ignore=ignore or (),
                domain=domain,
                dry_run=dry_run,
                update=update,
                allow_refused=allow_refused,
            )
        except NotFound:
            console.fail("that gateway is of a release that takes no files")
        except HopgateError as error:
            if not error.may_have_applied:
                raise
            console.fail(f"the import is not whole: {error}; run it again to go on")
    if json:
        console.show({name: value for name, value in done.document.items() if name != "succeeded"})
    else:
        console.print_store()
        print_report(_report(done.document))
    if not done.summary.succeeded:
        raise SystemExit(1)


def _report(document: Mapping[str, Any]) -> ImportReport:
    """Return a report of another machine; nothing of it does anything on a terminal."""
    reasons = [
        Reason(
            terminal_safe(one["field"]),
            terminal_safe(one["code"]),
            terminal_safe(one["message"]),
            int(one["rows"]),
            tuple(map(terminal_safe, one["examples"])),
        )
        for one in document.get("reasons", ())
    ]
    summary = Summary(
        **{name: int(document[name]) for name in ("read", "imported", "updated", "same", "refused")},
        reasons=tuple(reasons),
        ignored_columns=tuple(map(terminal_safe, document.get("ignored_columns", ()))),
        notes=tuple(map(terminal_safe, document.get("notes", ()))),
    )
    return ImportReport(terminal_safe(document["format"]), "row", bool(document["dry_run"]), summary)


# --- domains -------------------------------------------------------------------------------


def add_domain(gateway: Hopgate, *, host: str, ignore_case: bool, json: bool, **options: Any) -> None:
    """Serve another host."""
    made = gateway.domains.add(host, case_sensitive=not ignore_case, **domains.settings_of(**options))
    _show_domain(made, json=json)


def edit_domain(gateway: Hopgate, *, host: str, json: bool, **options: Any) -> None:
    """Change what the options name; the rest of the domain stays as it is."""
    patch = domains.settings_of(**options)
    if not patch:
        message = "name at least one setting to change; hopgate domains edit --help lists them"
        console.fail(message, names_store=False)
    try:
        changed = gateway.domains.change(host, **patch)
    except NotFound:
        console.fail(f"there is no domain {host}")
    _show_domain(changed, json=json)


def list_domains(gateway: Hopgate, *, json: bool) -> None:
    """List the domains, the default one first."""
    found = gateway.domains.list()
    if json:
        console.show(found)
        return
    for one in found:
        console.say(f"{one.host}{'  (default)' if one.is_default else ''}")


def remove_domain(gateway: Hopgate, *, host: str, json: bool) -> None:
    """Serve a host no more."""
    try:
        gateway.domains.remove(host)
    except NotFound:
        console.fail(f"there is no domain {host}")
    if json:
        console.show({"host": host, "removed": True})
    else:
        console.say(f"{host} is served no more")


def _show_domain(domain: Domain, *, json: bool) -> None:
    if json:
        console.show(domain)
    else:
        console.say(domain.host)


# --- keys ----------------------------------------------------------------------------------


def create_key(
    gateway: Hopgate,
    *,
    name: str,
    scope: list[str] | None,
    expires_in: str | None,
    own_links: bool,
    domain: list[str] | None,
    allow_address: list[str] | None,
    rate_limit: str | None,
    json: bool,
) -> None:
    """Create an API key. It is shown once."""
    made = gateway.keys.create(
        name,
        scope or ["links:read", "links:write"],
        expires_in=expires_in,
        own_links=own_links,
        domains=domain or None,
        allowed_addresses=allow_address or (),
        rate_limit=rate_limit,
    )
    if json:
        console.show({"key": made.key, **asdict(made)})
    else:
        console.say(made.key)


def list_keys(gateway: Hopgate, *, json: bool) -> None:
    """List all API keys, revoked ones included, without their secrets."""
    from app.bootstrap import utc_now

    found = gateway.keys.list()
    if json:
        console.show(found)
        return
    now = utc_now()
    for key in found:
        console.say(keys.line(key, now))


def revoke_key(gateway: Hopgate, *, key_id: str, json: bool) -> None:
    """Revoke an API key."""
    try:
        gateway.keys.revoke(key_id)
    except NotFound:
        console.fail(f"there is no key {key_id}")
    if json:
        console.show({"key_id": key_id, "revoked": True})
    else:
        console.say(f"{key_id} is revoked")


# --- blocks --------------------------------------------------------------------------------


def add_blocks(gateway: Hopgate, *, hosts: list[str] | None, slug: list[str] | None, json: bool) -> None:
    """Block hosts with their subdomains, and slugs."""
    asked = dict.fromkeys(blocks.named(hosts, slug))
    done = gateway.blocks.add(hosts=_values(asked, BlockKind.HOST), slugs=_values(asked, BlockKind.SLUG))
    if json:
        console.show(done)
    else:
        console.say(f"{blocks.count_of(done.added)} added, {done.present:,} there already")


def remove_blocks(gateway: Hopgate, *, hosts: list[str] | None, slug: list[str] | None, json: bool) -> None:
    """Unblock hosts and slugs. Exits with 1 if one of them was not blocked."""
    removed = unknown = 0
    for block in dict.fromkeys(blocks.named(hosts, slug)):
        is_host = block.kind is BlockKind.HOST
        remove = gateway.blocks.remove_host if is_host else gateway.blocks.remove_slug
        try:
            remove(block.value)
            removed += 1
        except NotFound:
            unknown += 1
    if json:
        console.show({"removed": removed, "unknown": unknown})
    else:
        console.say(f"{blocks.count_of(removed)} removed, {unknown:,} not there")
    if unknown:
        raise SystemExit(1)


def list_blocks(gateway: Hopgate, *, json: bool) -> None:
    """List all blocks, latest first."""
    found = [*gateway.blocks.list()]
    if json:
        console.show(found)
        return
    for one in found:
        console.say(f"{one.created_at:%Y-%m-%d}  {one.kind}  {one.value}")


def _values(asked: Mapping[Block, None], kind: BlockKind) -> list[str]:
    return [block.value for block in asked if block.kind is kind]
