"""One gateway process: redirects, the API, and what runs in the background. Embedded, a worker too."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from app.adapters import sketches
from app.adapters.copy_file import BlockFile, DomainFile
from app.adapters.file_spool import FileSpool
from app.adapters.guards import DependencyGuards
from app.adapters.native_limiter import read_own_rate
from app.bootstrap.console import new_console
from app.bootstrap.data_plane import DataPlane, open_data_plane
from app.bootstrap.dependencies import (
    Dependencies,
    open_dependencies,
    open_limiter,
    open_replicas,
    utc_now,
)
from app.bootstrap.imports import new_imports
from app.bootstrap.links import (
    new_aliases,
    new_bulk_links,
    new_domains,
    new_history,
    new_links,
    new_listings,
    new_stats,
    target_policy,
)
from app.bootstrap.reports import open_reports
from app.bootstrap.tracing import open_traces
from app.bootstrap.visits import Descriptions, open_descriptions
from app.bootstrap.webhooks import new_dispatcher, new_feed, new_webhooks
from app.bootstrap.worker import new_deliveries, worker_sources
from app.concurrency.background import running, serving
from app.concurrency.loop_lag import watch_loop_lag
from app.concurrency.stopping import close
from app.concurrency.tarpit import Tarpit
from app.domain.blocks import BlockIndex
from app.domain.domains import DomainIndex
from app.domain.errors import SettingsError
from app.domain.policy import TargetPolicy
from app.ports import EventBus, RateLimiter
from app.resilience.admission import TICK_S, AdmissionController
from app.service.aliases import Aliases
from app.service.blocks import Blocks, BlockWatch
from app.service.bulk import BulkLinks
from app.service.cache_sync import CacheSync
from app.service.clicks import ClickCounter, ClickPublisher
from app.service.domains import Domains, DomainWatch
from app.service.epochs import EpochWatch
from app.service.event_feed import EventFeed
from app.service.find import Listings
from app.service.history import History
from app.service.imports import Imports
from app.service.key_management import KeyManagement, KeyUses
from app.service.keys import Authenticator
from app.service.l1_cache import L1, L1Cache
from app.service.link_export import Exports
from app.service.links import Links
from app.service.outbox import OutboxPublisher
from app.service.resolver import Resolver
from app.service.stats import Stats
from app.service.visit_quota import VisitQuota
from app.service.webhooks import Webhooks
from app.settings import Settings
from app.telemetry.deliveries import ChangeAges
from app.telemetry.errors import ErrorCounts
from app.telemetry.metrics import Metrics, Source
from app.telemetry.process import process_samples
from app.telemetry.recent import RecentOverview
from app.telemetry.requests import RequestMetrics
from app.telemetry.samples import Rising
from app.telemetry.sharing import SharedSamples
from app.telemetry.sources import (
    admission_samples,
    block_samples,
    click_samples,
    front_samples,
    limiter_samples,
    look_up_samples,
    redirect_samples,
    visit_samples,
)
from app.web import qr_logo
from app.web.blocked import rendering
from app.web.pages import DEFAULT_LANGUAGE, Pages, load
from app.web.redirects import RedirectHandler
from app.web.response import Response
from app.web.services import Services
from worker.main import run_worker

log = logging.getLogger(__name__)


@asynccontextmanager
async def open_gateway(settings: Settings) -> AsyncIterator[Services]:
    """Open everything that one gateway process needs, in three steps over its dependencies."""
    guards = DependencyGuards()
    admission = AdmissionController(monotonic=time.monotonic)
    requests, failures = RequestMetrics(), ErrorCounts()
    index, domains = BlockIndex(), DomainIndex(settings.public_url)
    policy = target_policy(settings, index, domains)
    domains.allows = policy.allows_url
    pages = pages_of(settings)
    async with (
        open_reports("hopgate-gateway"),
        open_traces(settings, "hopgate-gateway") as traces,
        open_dependencies(settings, guards, traces) as to,
        open_limiter(settings) as limiter,
        open_data_plane(settings, limiter, traces, pages) as plane,
        open_redirects(
            settings,
            to,
            limiter,
            admission,
            policy,
            index=index,
            domains=domains,
            on_error=traces.noting(failures.add),
            plane=plane,
        ) as redirects,
        open_api(settings, to, redirects, policy) as api,
        open_background(
            settings,
            to,
            admission,
            failures,
            redirects=redirects,
            sources=redirects.sources(limiter, requests, plane),
        ) as metrics,
    ):
        yield Services(
            links=api.links,
            listings=api.listings,
            aliases=api.aliases,
            history=api.history,
            bulk=api.bulk,
            exports=api.exports,
            imports=api.imports,
            blocks=api.blocks,
            domains=api.domains,
            webhooks=api.webhooks,
            events=api.events,
            event_streams=settings.event_streams,
            stats=api.stats,
            redirects=redirects.handler,
            metrics=metrics,
            recent=RecentOverview(metrics.samples, monotonic=time.monotonic),
            requests=requests,
            authenticator=api.authenticator,
            keys=api.keys,
            key_limits={
                "requests": settings.limit_api,
                "creates": settings.limit_create,
                "bulk_items": settings.limit_bulk,
            },
            limiter=limiter,
            admission=admission,
            tarpit=Tarpit(monotonic=time.monotonic),
            probes={
                "store": to.store.ping,
                "cache": to.cache.ping,
                "bus": to.bus.ping,
                **({} if plane is None else {"front": plane.probe}),
            },
            guards=None if settings.embedded else guards.snapshot,
            is_draining=partial(_is_draining, settings),
            pages=pages,
            public_url=settings.public_url,
            target_schemes=policy.schemes,
            dialects=settings.spoken_dialects,
            trusted_proxies=settings.trusted_proxies,
            is_for_this_machine=settings.embedded and not (settings.base_url or settings.trusted_proxies),
            trace_id=partial(secrets.token_hex, 8),
            on_error=traces.noting(failures.add),
            tracing=traces.tracing,
            front=None if plane is None else plane.front,
            has_preview=settings.preview == "on",
            qr_logo=qr_logo.of(settings.qr_logo),
            note_visit=None if redirects.described is None else redirects.described.notes.note,
            console=new_console(settings, to.store, api.authenticator),
        )


# --- redirects ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirects:
    """The parts of the redirect path that other parts of a gateway need."""

    l1: L1[Response]
    resolver: Resolver[Response]
    clicks: ClickPublisher
    handler: RedirectHandler
    ages: ChangeAges
    blocks: BlockWatch
    index: BlockIndex
    domains: DomainWatch
    hosts: DomainIndex
    described: Descriptions | None

    def sources(
        self, limiter: RateLimiter, requests: RequestMetrics, plane: DataPlane | None
    ) -> Sequence[Source]:
        """Return the metrics of requests and redirects."""
        # First: it moves what the front has counted to the others.
        moving = partial(front_samples, None) if plane is None else plane.source(requests, self.handler)
        return (
            moving,
            requests.samples,
            Rising(partial(redirect_samples, self.handler, limiter)),
            partial(limiter_samples, limiter),
            partial(look_up_samples, self.resolver, self.l1),
            partial(click_samples, self.clicks),
            partial(visit_samples, self.described),
            self.ages.samples,
            partial(block_samples, self.index),
        )


@asynccontextmanager
async def open_redirects(
    settings: Settings,
    to: Dependencies,
    limiter: RateLimiter,
    admission: AdmissionController,
    policy: TargetPolicy,
    *,
    index: BlockIndex,
    domains: DomainIndex,
    on_error: Callable[[Exception], None],
    plane: DataPlane | None,
) -> AsyncIterator[Redirects]:
    """The redirect path: L1 cache, resolver, click counting and visit quota."""
    counter = ClickCounter()
    ages = ChangeAges(time.time)
    new_l1: Callable[..., L1[Response]] = L1Cache if plane is None else plane.l1
    l1 = new_l1(
        rendering(policy, settings.public_url, domains),
        monotonic=time.monotonic,
        wall=time.time,
        clicked=counter.count,
        noted=ages.note,
    )
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_replicas(settings, to.guards, to.pools))
        replica = to.traces.replica(opened)
        resolver = to.traces.resolver(Resolver)(l1, to.cache, to.store, to.bus, admission, replica=replica)
        await stack.enter_async_context(serving("resolver", resolver))
        described = await stack.enter_async_context(open_descriptions(settings, to.store, to.bus, plane))
        clicks = await stack.enter_async_context(open_clicks(settings, counter, l1, to.bus, described))
        leases = None if plane is None else plane.front
        quota = VisitQuota(to.store, monotonic=time.monotonic, leases=leases)
        await stack.enter_async_context(serving("visit quota", quota))
        await to.bus.listen(l1)
        copy = None if settings.embedded else BlockFile(settings.data_dir / "blocks")
        hosts = DomainWatch(
            to.store,
            domains,
            l1,
            copy=None if settings.embedded else DomainFile(settings.data_dir / "domains"),
            changed=(lambda _: None) if plane is None else plane.set_domains,
        )

        blocks = BlockWatch(to.store, index, l1, copy=copy, hosts_changed=hosts.pages_changed)

        def begin_epoch(epoch: int) -> None:
            l1.begin_epoch(epoch)
            blocks.begin_epoch(epoch)
            hosts.begin_epoch(epoch)

        epochs = EpochWatch(to.store, begin_epoch)
        await epochs.first_look()
        await blocks.first_look()
        await hosts.first_look()
        await stack.enter_async_context(serving("block watch", blocks))
        await stack.enter_async_context(serving("domain watch", hosts))
        await stack.enter_async_context(running("epoch watch", epochs.run()))
        handler = RedirectHandler(
            l1,
            resolver,
            limiter,
            counter,
            quota,
            domains=domains,
            monotonic=time.monotonic,
            on_error=on_error,
        )
        yield Redirects(
            l1=l1,
            resolver=resolver,
            clicks=clicks,
            handler=handler,
            ages=ages,
            blocks=blocks,
            index=index,
            domains=hosts,
            hosts=domains,
            described=described,
        )


@asynccontextmanager
async def open_clicks(
    settings: Settings,
    counter: ClickCounter,
    l1: L1[Response],
    bus: EventBus,
    described: Descriptions | None,
) -> AsyncIterator[ClickPublisher]:
    """Publish clicks and what they looked like, or keep both on the local disk."""
    new_id = partial(secrets.token_hex, 16)
    spool = FileSpool(settings.data_dir / "clicks", new_name=new_id)
    try:
        publisher = ClickPublisher(
            counter,
            l1.collect,
            bus,
            spool,
            clock=utc_now,
            new_id=new_id,
            described=None if described is None else described.publisher,
        )
        async with serving("click publisher", publisher):
            yield publisher
    finally:
        await close("click spool", spool.aclose())


# --- API ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The services behind the API."""

    links: Links
    aliases: Aliases
    listings: Listings
    history: History
    bulk: BulkLinks
    exports: Exports
    imports: Imports
    blocks: Blocks
    domains: Domains
    webhooks: Webhooks
    events: EventFeed
    stats: Stats
    authenticator: Authenticator
    keys: KeyManagement


@asynccontextmanager
async def open_api(
    settings: Settings, to: Dependencies, redirects: Redirects, policy: TargetPolicy
) -> AsyncIterator[Api]:
    """The services of the API; changes of links go to the broker, the shared cache and the L1 cache."""
    publisher = OutboxPublisher(to.store, to.bus, CacheSync(to.store, to.cache, to.bus), redirects.l1)
    authenticator = Authenticator(to.store, monotonic=time.monotonic, clock=utc_now)
    async with (
        serving("outbox publisher", publisher),
        serving("key uses", KeyUses(to.store, authenticator)),
        serving("event feed", new_feed(to.store, redirects.hosts, redirects.domains.look)) as events,
    ):
        yield Api(
            links=new_links(settings, to.store, publisher.deliver, policy),
            aliases=new_aliases(to.store, publisher.deliver, policy),
            listings=new_listings(to.store, publisher.deliver),
            history=new_history(settings, to.store, publisher.deliver, policy),
            bulk=new_bulk_links(settings, to.store, publisher.deliver, publisher.appear, policy),
            exports=Exports(to.store, clock=utc_now),
            imports=new_imports(settings, to.store, publisher.deliver, policy, settings.data_dir),
            blocks=Blocks(to.store, redirects.blocks.look, clock=utc_now),
            domains=new_domains(settings, to.store, redirects.hosts, redirects.domains.look, policy),
            webhooks=new_webhooks(settings, to.store, redirects.hosts, policy),
            events=events,
            stats=new_stats(to.store),
            authenticator=authenticator,
            keys=KeyManagement(
                to.store,
                clock=utc_now,
                choice=secrets.choice,
                on_change=authenticator.forget,
                read_rate=read_own_rate,
            ),
        )


# --- background --------------------------------------------------------------------------


@asynccontextmanager
async def open_background(
    settings: Settings,
    to: Dependencies,
    admission: AdmissionController,
    failures: ErrorCounts,
    *,
    redirects: Redirects,
    sources: Sequence[Source],
) -> AsyncIterator[Metrics]:
    """The loop-lag watch, metrics, and in an embedded gateway a worker."""
    own: list[Source] = [process_samples, failures.samples, partial(admission_samples, admission)]
    sources = [*own, *to.sources(), *sources]
    watch = watch_loop_lag(admission.tick, period_s=TICK_S, monotonic=time.monotonic)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running("loop-lag watch", watch))
        if settings.embedded:
            deliveries = new_deliveries(failures)
            worker = await stack.enter_async_context(
                run_worker(
                    to.store,
                    to.cache,
                    to.bus,
                    deliveries,
                    webhooks=new_dispatcher(settings, to.store, redirects.hosts, redirects.domains.look),
                    merge=sketches.merge,
                    clock=utc_now,
                    monotonic=time.monotonic,
                    history=timedelta(days=settings.history_days),
                    events=timedelta(days=settings.events_days),
                    visits=timedelta(days=settings.analytics_days),
                )
            )
            sources = [*sources, *worker_sources(worker, deliveries)]
        shared = SharedSamples(settings.metrics_dir, clock=time.monotonic) if settings.metrics_dir else None
        yield await stack.enter_async_context(serving("metrics", Metrics(sources, shared)))


def pages_of(settings: Settings) -> Pages:
    """Return the pages for people; those that ship if the folder is unusable since the start."""
    try:
        return load(settings.language, settings.pages)
    except SettingsError as error:
        log.error("the pages that ship are served: %s", error)  # noqa: TRY400 one line says it all
        return load(DEFAULT_LANGUAGE)


def _is_draining(settings: Settings) -> bool:
    return settings.draining_path is not None and settings.draining_path.exists()
