"""Is it alive, can it serve: answered from probes, never refused, never limited."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from app.domain.errors import Unavailable
from app.web.answer import Answer, json_answer
from app.web.services import GuardStates, Probe

_PROBE_S = 1.0
_REMEMBERED_S = 1.0


def draining() -> Answer:
    """It has been told to end, and still answers: send new visitors elsewhere."""
    return json_answer(503, {"status": "draining"})


def alive() -> Answer:
    """The event loop turns."""
    return json_answer(200, {"status": "ok"})


class Readiness:
    """Asks the dependencies at most once a second, however many ask for the answer."""

    def __init__(self) -> None:
        self._asking: asyncio.Task[Answer] | None = None
        self._until = 0.0

    async def answer(self, probes: Mapping[str, Probe], guards: GuardStates | None) -> Answer:
        """Return what `ready` says, at most a second old."""
        now = asyncio.get_running_loop().time()
        if self._asking is None or (self._asking.done() and now >= self._until):
            self._asking = asyncio.create_task(ready(probes, guards))
            self._until = now + _REMEMBERED_S
        return await asyncio.shield(self._asking)


async def ready(probes: Mapping[str, Probe], guards: GuardStates | None) -> Answer:
    """
    Can redirects be served?

    200 as long as the store or the cache answers: a dead dependency is shown, not passed on,
    or a load balancer would take every gateway away at once. Breakers are shown and decide
    nothing: they open and close by the second.
    """
    names = list(probes)
    results = await asyncio.gather(*(_probe(probes[name]) for name in names))
    dependencies = dict(zip(names, results, strict=True))
    serving = any(dependencies.get(name) == "ok" for name in ("store", "cache"))
    degraded = any(result != "ok" for result in results)
    status = "unavailable" if not serving else "degraded" if degraded else "ok"
    document: dict[str, Any] = {"status": status, "dependencies": dependencies}
    if guards is not None:
        document["breakers"] = {name: guard.state for name, guard in guards().items()}
    return json_answer(200 if serving else 503, document)


async def _probe(probe: Probe) -> str:
    try:
        async with asyncio.timeout(_PROBE_S):
            await probe()
    except Unavailable as error:
        return error.reason
    except TimeoutError:
        return f"no answer within {_PROBE_S:g} s"
    return "ok"
