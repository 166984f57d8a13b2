"""The variables of Sentry, as far as Hopgate reads them itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from app.domain.errors import SettingsError
from app.settings import values


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """
    Where errors are reported, and under which names.

    `dsn` is secret: it holds the key of a project; `endpoint` is what people may see of it.
    """

    dsn: str
    endpoint: str
    environment: str
    release: str | None


def report_settings(environment: Mapping[str, str] = os.environ) -> ReportSettings | None:
    """
    Return where to report errors; None if SENTRY_DSN does not ask for it.

    Raises:
        SettingsError: SENTRY_DSN is no DSN. It is not quoted.
    """
    given = {name: value.strip() for name, value in environment.items() if value.strip()}
    dsn = given.get("SENTRY_DSN")
    if dsn is None:
        return None
    if not _is_dsn(dsn):
        raise SettingsError(
            "SENTRY_DSN: a URL such as https://KEY@sentry.example/PROJECT, with a number at its end"
        )
    return ReportSettings(
        dsn,
        values.without_secrets(dsn),
        given.get("SENTRY_ENVIRONMENT", "production"),
        given.get("SENTRY_RELEASE"),
    )


def _is_dsn(text: str) -> bool:
    try:
        url = urlsplit(text)
        has_host = bool(url.hostname) and (url.port or 1) > 0
    except ValueError:
        return False
    project = url.path.rpartition("/")[2]
    return url.scheme in ("http", "https") and has_host and bool(url.username) and project.isdecimal()
