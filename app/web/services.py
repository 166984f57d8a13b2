"""Everything that the web layer may call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from app.concurrency.tarpit import Tarpit
from app.domain.visits import Look
from app.ports import RateLimiter
from app.resilience.admission import AdmissionController
from app.service.aliases import Aliases
from app.service.blocks import Blocks
from app.service.bulk import BulkLinks
from app.service.domains import Domains
from app.service.event_feed import EventFeed
from app.service.find import Listings
from app.service.history import History
from app.service.imports import Imports
from app.service.key_management import KeyManagement
from app.service.keys import Authenticator
from app.service.link_export import Exports
from app.service.links import Links
from app.service.stats import Stats
from app.service.webhooks import Webhooks
from app.settings import IpNetwork
from app.telemetry.metrics import Metrics
from app.telemetry.recent import RecentOverview
from app.telemetry.requests import RequestMetrics
from app.web.health import GuardStates, Probe, Readiness
from app.web.pages import Pages
from app.web.qr_logo import Logo
from app.web.redirects import RedirectHandler

if TYPE_CHECKING:
    from hopgate_front import Front

    from app.telemetry.tracing import Tracing
    from app.web.middleware import ApiMiddleware


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """
    Built by `app.bootstrap`.

    `probes`: of the dependencies, by name; the gateway is ready as long as one of `probes["store"]` and
    `probes["cache"]` answers and, if there is a `probes["front"]`, that one. `guards`: the state of the
    circuit breakers, by name; None if there are none. `key_limits`: the rates of each key, by what they
    count. `event_streams`: how many clients may read `events` at once. `is_draining`: the process is about
    to stop. `is_for_this_machine`: an embedded gateway without a public name or a proxy, which shows its
    figures to this machine without a key. `recent`: those figures. `on_error`: is notified of each error
    that a request ended with. `trace_id`: makes the id of a request that has none. `tracing`: makes the
    spans of requests; None if tracing is off. `front`: the data plane in front of the application; None if
    granian is alone. `target_schemes`: what targets may have, in lower case. `has_preview`: visitors may
    ask where a link leads. `qr_logo`: in QR codes; None if they have none. `pages`: for people.
    `dialects`: the names of those that are on. `note_visit`: keeps what a visit looks like; None if that is
    not kept. `console`: declares the routes of the console on an application, behind the middleware; None if
    it is off.
    """

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
    event_streams: int
    stats: Stats
    redirects: RedirectHandler
    authenticator: Authenticator
    keys: KeyManagement
    key_limits: Mapping[str, str]
    limiter: RateLimiter
    admission: AdmissionController
    tarpit: Tarpit
    probes: Mapping[str, Probe]
    guards: GuardStates | None
    is_draining: Callable[[], bool]
    metrics: Metrics
    recent: RecentOverview
    requests: RequestMetrics
    pages: Pages
    public_url: str
    target_schemes: frozenset[str]
    dialects: frozenset[str]
    trusted_proxies: tuple[IpNetwork, ...]
    is_for_this_machine: bool
    trace_id: Callable[[], str]
    on_error: Callable[[Exception], None]
    tracing: Tracing | None = None
    front: Front | None = None
    has_preview: bool = True
    qr_logo: Logo | None = None
    note_visit: Callable[[Look], None] | None = None
    console: Callable[[Any, ApiMiddleware, Services, Readiness], None] | None = None
