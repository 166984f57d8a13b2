"""The reports of errors of one process: opened after the fork, as what sends them has a thread."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.bootstrap.tracing import NotInstalled
from app.concurrency.stopping import close
from app.settings.reports import ReportSettings, report_settings


def wanted() -> ReportSettings | None:
    """
    Return where to report errors; None if reports are off.

    Raises:
        SettingsError: SENTRY_DSN is no DSN.
        NotInstalled: the extra is missing. It is no reason not to serve.
    """
    asked = report_settings()
    if asked is None:
        return None
    try:
        import sentry_sdk
    except ImportError:
        raise NotInstalled(
            f"no errors are reported to {asked.endpoint}, as sentry-sdk is not installed:"
            " run `make sentry`, or pip install 'hopgate[sentry]'"
        ) from None
    del sentry_sdk
    return asked


@asynccontextmanager
async def open_reports(service: str) -> AsyncIterator[None]:
    """Report what this process, *service*, fails by while the body runs, if SENTRY_DSN asks for it."""
    try:
        asked = wanted()
    except NotInstalled:  # the command that started says so
        asked = None
    if asked is None:
        yield
        return
    from app.telemetry.reports import ErrorReports

    reports, root = ErrorReports(asked, service, monotonic=time.monotonic), logging.getLogger()
    root.addHandler(reports)
    try:
        yield
    finally:
        root.removeHandler(reports)
        await close("error reports", reports.aclose())
