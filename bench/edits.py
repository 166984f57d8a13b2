"""Measures how soon every process serves an edit under load, and how late without event delivery."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from bench import load
from bench.load import Load, Visit
from bench.processes import CPUS, Server
from bench.results import Bar, Check, Result, Run, Side
from bench.site import ONE, Site, Stack, numbered_slug
from tests.servers.proxy import SILENT, FaultProxy

RESULTS = ("edits",)
_GATEWAYS = 4
_PER_SECOND = 750  # of each gateway
_SECONDS, _QUICK_SECONDS = 15, 2
# Edits in sequence while RabbitMQ delivers no event.
_CUT_LINKS, _CUT_EDITS_S = 20, 2.0
_WATCHED_S = 4.0


def measure(stack: Stack, run: Run, turn: Callable[[str], None], *, quick: bool) -> list[Result]:
    """Edit on one gateway and request from all of them without pause, while each serves a load."""
    site = stack.site(_CUT_LINKS)
    seconds = _QUICK_SECONDS if quick else _SECONDS
    with ExitStack() as running:
        proxies = [running.enter_context(FaultProxy(stack.rabbitmq.port)) for _ in range(_GATEWAYS)]
        gateways = [running.enter_context(site.gateway(_behind(site, proxy), cpus=CPUS)) for proxy in proxies]
        running.enter_context(site.worker())
        list(_edit_until(gateways, site.key, time.monotonic() + 1))  # every gateway is connected
        turn(f"edits for {seconds} s")
        with _loaded(gateways, seconds) as loads:
            seen_ms = sorted(_edit_until(gateways, site.key, time.monotonic() + seconds))
        stale_s = {}
        for party, cut in (("the other gateways", proxies[1:]), ("any gateway", proxies)):
            turn(f"no delivery to {party}")
            with _loaded(gateways, round(_CUT_EDITS_S + _WATCHED_S)):
                stale_s[party] = _edit_undelivered(gateways, site.key, cut)
    figures = ", ".join(f"{share:g} % {load.percentile(seen_ms, share / 100):.1f}" for share in (50, 99))
    return [
        Result(
            "edits",
            f"Edits, visible in {_GATEWAYS} processes under load",
            f"{_GATEWAYS} gateways of one process and a worker share all processors with the load, "
            f"`h2load --rps` of {_PER_SECOND}/s on each. A link is edited on one gateway, then requested "
            "from all without pause until each returns the new target; each had the old one in its L1 cache. "
            "Then the network to RabbitMQ drops all data while links are edited.",
            "p99_ms",
            [Side("hopgate", "Hopgate, each gateway", loads)],
            {},
            run,
            [f"{len(seen_ms)} edits; ms from the acknowledgement until every process returns it: {figures}."],
            [
                Check("edit visible in all, p99", load.percentile(seen_ms, 0.99), Bar(at_most=100), " ms"),
                *(
                    Check(f"stale, no delivery to {party},", late_s, Bar(at_most=2), " s")
                    for party, late_s in stale_s.items()
                ),
            ],
        )
    ]


def turns(*, quick: bool) -> int:
    """Return how often `measure` calls `turn`."""
    return 3


def _behind(site: Site, proxy: FaultProxy) -> dict[str, str]:
    """Return the settings of a gateway that reaches RabbitMQ through *proxy*."""
    url = urlsplit(site.settings["HOPGATE_AMQP_URL"])
    host = url.netloc.replace(f":{url.port}", f":{proxy.port}")
    return {"HOPGATE_AMQP_URL": url._replace(netloc=host).geturl()}


@contextmanager
def _loaded(gateways: Sequence[Server], seconds: int) -> Iterator[list[Load]]:
    """Send a load to each of *gateways* for *seconds*; the list has its figures after the body."""
    loads: list[Load] = []
    visit = Visit(path=f"/{ONE}", connections=16)
    with ThreadPoolExecutor(len(gateways)) as pool:
        begun = [
            pool.submit(load.at_rate, gateway, visit, seconds=seconds, rate=_PER_SECOND)
            for gateway in gateways
        ]
        time.sleep(0.3)  # until the load runs
        yield loads
        loads += [one.result() for one in begun]


class _Links:
    """Reads and edits links; not thread-safe."""

    def __init__(self, gateways: Sequence[Server], key: str) -> None:
        self._key = key
        self._connections = [
            http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10) for gateway in gateways
        ]

    def edit(self, slug: str, number: int) -> None:
        """Edit *slug* on the first gateway: its new target ends in *number*."""
        headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
        body = json.dumps({"long_url": f"https://example.com/{number}"})
        self._connections[0].request("PATCH", f"/api/v1/links/{slug}", body, headers)
        answer = self._connections[0].getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"an edit was answered {answer.status}: {text[:200]!r}")

    def number(self, slug: str, gateway: int) -> int:
        """Return the number in the target from *gateway*; 0 if the link was never edited."""
        connection = self._connections[gateway]
        connection.request("GET", f"/{slug}")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 302:
            raise RuntimeError(f"a visit was answered {answer.status}")
        last = (answer.getheader("location") or "").rpartition("/")[2]
        return int(last) if last.isdigit() else 0


def _edit_until(gateways: Sequence[Server], key: str, end: float) -> Iterator[float]:
    """Edit one link repeatedly; yield the ms until every gateway returned the new target."""
    links, slug, number = _Links(gateways, key), str(numbered_slug(0)), time.monotonic_ns()
    while time.monotonic() < end:
        waiting = list(range(len(gateways)))
        for gateway in waiting:
            links.number(slug, gateway)  # now it is in every L1 cache
        number += 1
        links.edit(slug, number)
        acknowledged = time.monotonic()
        while waiting:
            waiting = [gateway for gateway in waiting if links.number(slug, gateway) != number]
        yield (time.monotonic() - acknowledged) * 1000


def _edit_undelivered(gateways: Sequence[Server], key: str, cut: Sequence[FaultProxy]) -> float:
    """Edit links while *cut* drop all data; return the longest staleness (s) after an acknowledgement."""
    slugs = [str(numbered_slug(number)) for number in range(_CUT_LINKS)]
    editor, number = _Links(gateways, key), time.monotonic_ns()
    acknowledged: dict[str, float] = {}
    over = threading.Event()

    def watch() -> float:
        links, latest_s = _Links(gateways, key), 0.0
        while not over.is_set():
            for slug in slugs:
                for gateway in range(len(gateways)):
                    asked, edited = time.monotonic(), acknowledged.get(slug)
                    if links.number(slug, gateway) != number and edited is not None:
                        latest_s = max(latest_s, asked - edited)
        return latest_s

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(watch)
        time.sleep(0.5)  # every link is in every L1 cache
        for proxy in cut:
            proxy.become(SILENT)
        for slug in slugs:
            editor.edit(slug, number)
            acknowledged[slug] = time.monotonic()
            time.sleep(_CUT_EDITS_S / len(slugs))
        time.sleep(_WATCHED_S - 0.5)
        over.set()
        return watching.result()
