"""
The composition root: the only package that knows both ports and adapters.

Each `open_*` is an async context manager that closes what it opened, in reverse.

    dependencies.py   store, replicas, cache, bus and rate limiter: which adapter, with which guards
    gateway.py        one gateway process
    front_records.py  spans and lines of what a front answers
    worker.py         one worker process
    links.py          the operations on links, also for the command line
    webhooks.py       the operations on webhooks, and what delivers to them
    imports.py        an import, or a dry run of one
    visits.py         what visits look like, in one gateway process
    tracing.py        the traces of one process
    reports.py        the reports of errors of one process
"""

from app.bootstrap.dependencies import (
    check_limits,
    check_servers,
    check_settings,
    check_urls,
    open_bus,
    open_cache,
    open_store,
    utc_now,
)
from app.bootstrap.gateway import open_gateway
from app.bootstrap.imports import open_import
from app.bootstrap.links import (
    new_stats,
    open_aliases,
    open_blocks,
    open_domains,
    open_history,
    open_links,
    open_listings,
    own_hosts,
    target_policy,
)
from app.bootstrap.webhooks import open_webhooks
from app.bootstrap.worker import open_worker

__all__ = [
    "check_limits",
    "check_servers",
    "check_settings",
    "check_urls",
    "new_stats",
    "open_aliases",
    "open_blocks",
    "open_bus",
    "open_cache",
    "open_domains",
    "open_gateway",
    "open_history",
    "open_import",
    "open_links",
    "open_listings",
    "open_store",
    "open_webhooks",
    "open_worker",
    "own_hosts",
    "target_policy",
    "utc_now",
]
