"""
A budget for requests that this process makes with requests.

    session = requests.Session()
    session.mount("https://api.example.com", LimitedAdapter("10/s"))

A request waits for its turn before it is sent, each hop of a redirect too. Retries by the adapter's own
`max_retries` are part of the request.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
from hopgate_limiter import Decision, Key, Limiter, Rate, RateLimitExceeded
from hopgate_limiter.contrib import _arguments
from hopgate_limiter.contrib._budget import Budget
from requests.adapters import BaseAdapter, HTTPAdapter

__all__ = ["BudgetExceeded", "LimitedAdapter"]


class BudgetExceeded(RateLimitExceeded, requests.Timeout):
    """No turn within the timeout: the request was not sent. Callers handle it as any timeout."""

    def __init__(self, decision: Decision, request: requests.PreparedRequest) -> None:
        """Keep the decision and the request."""
        requests.Timeout.__init__(self, f"refused by the rate '{decision.policy}'", request=request)
        self.decision = decision

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.decision, self.request)


def _host(request: requests.PreparedRequest) -> Key | None:
    return urlsplit(request.url or "").hostname or ""


class LimitedAdapter(BaseAdapter):
    """Waits for the budget, and sends by another adapter."""

    def __init__(
        self,
        *rates: str | Rate | Limiter,
        adapter: BaseAdapter | None = None,
        key: Key | Callable[[requests.PreparedRequest], Key | None] = _host,
        cost: int | Callable[[requests.PreparedRequest], int] = 1,
        timeout: float | None = None,
    ) -> None:
        """
        Set the budget.

        Args:
            rates: rates as `Limiter` takes them, or one limiter, which may be shared with other processes.
            adapter: sends the requests; `HTTPAdapter()` by default.
            key: the subject that is counted, by default each host; None for a request without a budget.
            cost: units that a request costs.
            timeout: the longest wait for a turn in seconds, unlimited if None.
        """
        super().__init__()
        self._budget = Budget(rates, key, cost, timeout, BudgetExceeded)
        if adapter is not None:
            _arguments.has_method("adapter", "an adapter of requests", adapter, "send")
        self._adapter = adapter or HTTPAdapter()

    def send(  # noqa: PLR0917 - as the base has it
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002
        timeout: Any = None,
        verify: bool | str = True,  # noqa: FBT001, FBT002
        cert: Any = None,
        proxies: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """Send a request in its turn."""
        self._budget.wait(request)
        return self._adapter.send(
            request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=dict(proxies or {})
        )

    def close(self) -> None:
        """Close the other adapter; the limiter stays open."""
        self._adapter.close()
