"""Both clients behind one interface, so that every test of them is one for both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from typing import Any

from hopgate_client import AsyncHopgate, Hopgate


class Clock:
    """A clock that moves when a client pauses; `pauses` are how long."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


class Driven:
    """What belongs to an asynchronous client, one call after the other."""

    def __init__(self, of: Any, runner: asyncio.Runner) -> None:
        self._of, self._runner = of, runner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._of, name)
        if not callable(value):
            return value if isinstance(value, str) else Driven(value, self._runner)

        def call(*args: Any, **named: Any) -> Any:
            outcome = value(*args, **named)
            if inspect.isasyncgen(outcome):
                return self._each(outcome)
            return self._runner.run(outcome)

        return call

    def _each(self, items: Any) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(items, self)

        while (item := self._runner.run(following())) is not self:
            yield item


class Clients:
    """Makes clients of one kind."""

    def __init__(self, *, is_async: bool) -> None:
        self.is_async = is_async
        self._runner = asyncio.Runner() if is_async else None
        self._made: list[Any] = []

    def __call__(
        self, url: str, key: str | None = None, *, clock: Clock | None = None, **options: Any
    ) -> Any:
        if clock is not None:
            sleep = clock.asleep if self.is_async else clock.sleep
            options = {"clock": clock, "sleep": sleep, "random": lambda: 1.0, **options}
        if self._runner is None:
            self._made.append(Hopgate(url, key, **options))
        else:
            self._made.append(Driven(AsyncHopgate(url, key, **options), self._runner))
        return self._made[-1]

    def close(self) -> None:
        for one in self._made:
            one.close()
        if self._runner is not None:
            self._runner.close()
