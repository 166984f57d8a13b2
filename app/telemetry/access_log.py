"""
The access log: one line for each request of a sample, and for each that failed.

A line has the route, never the path, the query string or what the client sent beside them, and of the
client its network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from app.settings.tracing import LOW_BITS

# Its level is its own: the access log is switched by its setting, not by that of other logs.
_NAME = "hopgate.access"
Fields = Mapping[str, str | int | float | None]


class AccessLog:
    """
    Decides which requests have a line, and writes it where all logs go.

    Args:
        share: of requests, above 0 and up to 1. It is a share of trace ids where there are any, so that all
            processes decide alike for one trace.
        random: a number from 0 up to 1, for requests without a trace.
    """

    def __init__(self, share: float, *, random: Callable[[], float]) -> None:
        self._share = share
        # Traces whose low bits are below it have a line.
        self.bound = round(share * (LOW_BITS + 1))
        self._random = random
        self._log = logging.getLogger(_NAME)
        self._log.setLevel(logging.INFO)

    def takes(self, trace_id: int, status: int, *, decided: bool | None = None) -> bool:
        """
        Has the request with *trace_id* (0: none) that ended with *status* a line?

        Args:
            decided: what a front has decided by the same share; None: nothing.
        """
        if status >= 500:
            return True
        if decided is not None:
            return decided
        return trace_id & LOW_BITS < self.bound if trace_id else self._random() < self._share

    def write(self, fields: Fields, *, at: float | None = None) -> None:
        """
        Write a line; its `method`, `route` and `status` are its message, too.

        Args:
            at: when the request ended, unix seconds; None: now.
        """
        message = f"{fields['method']} {fields['route']} {fields['status']}"
        # As `info` does, without its search for the caller, which takes as long as the rest.
        record = logging.LogRecord(_NAME, logging.INFO, __file__, 0, message, None, None)
        record.__dict__["fields"] = fields
        if at is not None:
            record.created = at
        self._log.handle(record)
