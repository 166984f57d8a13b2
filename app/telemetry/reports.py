"""
Reports unexpected errors to Sentry, by its SDK, which is imported only where this module is.

Whatever is logged with a traceback at level `error` is reported: a handler that failed, a background task
that ended. A dependency that is away has no traceback, and is no report.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from sentry_sdk import Client
from sentry_sdk.utils import event_from_exception

from app import __version__
from app.settings.reports import ReportSettings
from app.telemetry.logs import ids

# While everything fails, a report costs more than the request. Sentry needs a few of a kind.
_MAX_PER_S = 5
_FLUSH_S = 2.0
# The SDK and its transport log each attempt that fails.
_NOISY = ("sentry_sdk", "urllib3")


class ErrorReports(logging.Handler):
    """
    A log handler that reports the errors of one process. Belongs to a process that forks no more.

    A report has the class of the error, the stack, and the names of process, release and environment. It
    has no message, no variables and nothing of the request: these may hold what a client sent, or a
    password.

    Args:
        service: the name of the process.
        monotonic: seconds that never go back.
    """

    def __init__(self, settings: ReportSettings, service: str, *, monotonic: Callable[[], float]) -> None:
        super().__init__(logging.ERROR)
        self._service = service
        self._monotonic = monotonic
        self._second, self._sent = 0, 0
        for name in _NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # A client of its own, and none of the integrations: they patch libraries, and collect what is above.
        self._client: Any = Client(
            dsn=settings.dsn,
            environment=settings.environment,
            release=settings.release or f"hopgate@{__version__}",
            server_name=socket.gethostname(),
            default_integrations=False,
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            enable_backpressure_handling=False,
            include_local_variables=False,
            send_client_reports=False,
            debug=False,
            spotlight=False,
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a report of the error that *record* has; a full queue drops it."""
        error = record.exc_info[1] if record.exc_info else None
        if error is None or record.name.startswith(_NOISY) or not self._has_room():
            return
        try:
            self._client.capture_event(self._report(error, record.name))
        except Exception:  # noqa: BLE001 - as every log handler: what cannot be reported fails nothing
            self.handleError(record)

    async def aclose(self) -> None:
        """Send what is queued, within `_FLUSH_S`: what is left then is dropped."""
        await asyncio.to_thread(self._client.close, timeout=_FLUSH_S)

    def _report(self, error: BaseException, logger: str) -> Any:
        report, _ = event_from_exception(error, client_options=self._client.options)
        for one in report["exception"]["values"]:
            # Sentry tells errors apart by their stacks.
            one["value"] = ""
        trace = {name: value for name, value in ids().items() if name in ("trace_id", "span_id")}
        contexts = {"contexts": {"trace": trace}} if len(trace) == 2 else {}
        return {**report, **contexts, "logger": logger, "tags": {"service": self._service, **trace}}

    def _has_room(self) -> bool:
        second = int(self._monotonic())
        if second != self._second:
            self._second, self._sent = second, 0
        self._sent += 1
        return self._sent <= _MAX_PER_S
