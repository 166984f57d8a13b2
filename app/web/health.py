"""Liveness and readiness, from probes of the dependencies; exempt from all limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from app.concurrency.guard import GuardSnapshot
from app.domain.errors import Refused, Unavailable
from app.web.response import Response, json_response

# Returns if the dependency answers; raises Unavailable.
Probe = Callable[[], Awaitable[None]]
GuardStates = Callable[[], Mapping[str, GuardSnapshot]]

# The state of each dependency in words, and whether it answers reads.
_Results = Mapping[str, tuple[str, bool]]

_PROBE_S = 1.0
_REMEMBERED_S = 1.0


def draining() -> Response:
    """The process is stopping and still serves: a load balancer sends new clients elsewhere."""
    return json_response(503, {"status": "draining"})


def alive() -> Response:
    """The event loop runs."""
    return json_response(200, {"status": "ok"})


class Readiness:
    """Probes the dependencies at most once a second, for any number of requests."""

    def __init__(self) -> None:
        self._probing: asyncio.Task[_Results] | None = None
        self._until = 0.0

    async def check(self, probes: Mapping[str, Probe], guards: GuardStates | None) -> Response:
        """Return the result of `ready`, at most a second old."""
        return ready(await self._results(probes), guards)

    async def dependencies(self, probes: Mapping[str, Probe]) -> Mapping[str, str]:
        """Return the state of each dependency in words, at most a second old."""
        return {name: text for name, (text, _) in (await self._results(probes)).items()}

    async def _results(self, probes: Mapping[str, Probe]) -> _Results:
        now = asyncio.get_running_loop().time()
        if self._probing is None or (self._probing.done() and now >= self._until):
            self._probing = asyncio.create_task(_ask(probes))
            self._until = now + _REMEMBERED_S
        return await asyncio.shield(self._probing)


async def _ask(probes: Mapping[str, Probe]) -> _Results:
    names = list(probes)
    results = await asyncio.gather(*(_probe(probes[name]) for name in names))
    return dict(zip(names, results, strict=True))


def ready(results: _Results, guards: GuardStates | None) -> Response:
    """
    Return 200 as long as the store or the cache answers, so that redirects can be served.

    A front must also reach its application: nothing but a restart of this gateway can help then.
    One dead dependency is only shown: a failing check would make the load balancer remove every
    gateway at once. Breakers are shown, too; they open and close by the second and decide nothing.
    """
    dependencies = {name: text for name, (text, _) in results.items()}
    reading = {name for name, (_, is_reading) in results.items() if is_reading}
    reaching = "front" not in dependencies or "front" in reading
    serving = reaching and not reading.isdisjoint({"store", "cache"})
    degraded = any(text != "ok" for text in dependencies.values())
    status = "unavailable" if not serving else "degraded" if degraded else "ok"
    document: dict[str, Any] = {"status": status, "dependencies": dependencies}
    if guards is not None:
        document["breakers"] = {name: guard.state for name, guard in guards().items()}
    return json_response(200 if serving else 503, document)


async def _probe(probe: Probe) -> tuple[str, bool]:
    """Return the state of a dependency in words, and whether it answers reads."""
    try:
        async with asyncio.timeout(_PROBE_S):
            await probe()
    except Refused as error:
        return f"refuses writes: {error.reason}", True
    except Unavailable as error:
        return error.reason, False
    except TimeoutError:
        return f"no answer within {_PROBE_S:g} s", False
    return "ok", True
