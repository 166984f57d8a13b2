"""
A budget for requests that this process makes with httpx.

    client = httpx.AsyncClient(transport=AsyncLimitedTransport("10/s"))
    client = httpx.Client(transport=LimitedTransport("10/s", timeout=5.0))

A request waits for its turn before it is sent, each hop of a redirect too.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import httpx
from hopgate_limiter import Decision, Key, Limiter, Rate, RateLimitExceeded
from hopgate_limiter.contrib import _arguments
from hopgate_limiter.contrib._budget import Budget

__all__ = ["AsyncLimitedTransport", "BudgetExceeded", "LimitedTransport"]


class BudgetExceeded(RateLimitExceeded, httpx.TimeoutException):
    """No turn within the timeout: the request was not sent. Clients handle it as any timeout."""

    def __init__(self, decision: Decision, request: httpx.Request) -> None:
        """Keep the decision and the request."""
        httpx.TimeoutException.__init__(self, f"refused by the rate '{decision.policy}'", request=request)
        self.decision = decision

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return type(self), (self.decision, self.request)


def _host(request: httpx.Request) -> Key | None:
    return request.url.host


class LimitedTransport(httpx.BaseTransport):
    """Waits for the budget, and sends by another transport."""

    def __init__(
        self,
        *rates: str | Rate | Limiter,
        transport: httpx.BaseTransport | None = None,
        key: Key | Callable[[httpx.Request], Key | None] = _host,
        cost: int | Callable[[httpx.Request], int] = 1,
        timeout: float | None = None,
    ) -> None:
        """
        Set the budget.

        Args:
            rates: rates as `Limiter` takes them, or one limiter, which may be shared with other processes.
            transport: sends the requests; `httpx.HTTPTransport()` by default.
            key: the subject that is counted, by default each host; None for a request without a budget.
            cost: units that a request costs.
            timeout: the longest wait for a turn in seconds, unlimited if None.
        """
        self._budget = Budget(rates, key, cost, timeout, BudgetExceeded)
        if transport is not None:
            _arguments.has_method("transport", "a transport of httpx", transport, "handle_request")
        self._transport = transport or httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request in its turn."""
        self._budget.wait(request)
        return self._transport.handle_request(request)

    def close(self) -> None:
        """Close the other transport; the limiter stays open."""
        self._transport.close()

    def __enter__(self) -> LimitedTransport:
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._transport.__exit__(exc_type, exc_value, traceback)


class AsyncLimitedTransport(httpx.AsyncBaseTransport):
    """Waits for the budget while other tasks run, and sends by another transport."""

    def __init__(
        self,
        *rates: str | Rate | Limiter,
        transport: httpx.AsyncBaseTransport | None = None,
        key: Key | Callable[[httpx.Request], Key | None] = _host,
        cost: int | Callable[[httpx.Request], int] = 1,
        timeout: float | None = None,
    ) -> None:
        """As `LimitedTransport`; *transport* is `httpx.AsyncHTTPTransport()` by default."""
        self._budget = Budget(rates, key, cost, timeout, BudgetExceeded)
        if transport is not None:
            _arguments.has_method(
                "transport", "an async transport of httpx", transport, "handle_async_request"
            )
        self._transport = transport or httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request in its turn."""
        await self._budget.wait_async(request)
        return await self._transport.handle_async_request(request)

    async def aclose(self) -> None:
        """Close the other transport; the limiter stays open."""
        await self._transport.aclose()

    async def __aenter__(self) -> AsyncLimitedTransport:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._transport.__aexit__(exc_type, exc_value, traceback)
