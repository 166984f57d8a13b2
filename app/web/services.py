"""What the web layer is given: everything it may call, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from app.ports import Gate
from app.resilience.guard import GuardSnapshot
from app.resilience.tarpit import Tarpit
from app.service.admission import Entrance
from app.service.keys import Authenticator
from app.service.links import Links
from app.service.stats import Stats
from app.settings import IpNetwork
from app.web.metrics import Metrics
from app.web.redirect import RedirectLane

# Returns if the dependency answers; raises Unavailable.
Probe = Callable[[], Awaitable[None]]
GuardStates = Callable[[], Mapping[str, GuardSnapshot]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """
    Built by `app.bootstrap`.

    `probes` by name; the gateway can serve as long as one of `probes["store"]` and
    `probes["cache"]` answers. `guards` says how the ways to them stand, by name; None where
    there is nothing to guard. `is_draining`: has it been told to end? `trace_id` makes the id by
    which one failure is found in the log.
    """

    links: Links
    stats: Stats
    lane: RedirectLane
    authenticator: Authenticator
    gate: Gate
    entrance: Entrance
    tarpit: Tarpit
    probes: Mapping[str, Probe]
    guards: GuardStates | None
    is_draining: Callable[[], bool]
    metrics: Metrics
    public_url: str
    trusted_proxies: tuple[IpNetwork, ...]
    trace_id: Callable[[], str]
