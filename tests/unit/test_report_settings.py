"""The variables of Sentry: what turns reports on, and what is refused without a word of it."""

from __future__ import annotations

import pytest

from app.domain.errors import SettingsError
from app.settings.reports import report_settings

DSN = "https://geheim@sentry.example/path/42"


@pytest.mark.parametrize("given", [{}, {"SENTRY_DSN": " "}, {"SENTRY_ENVIRONMENT": "staging"}])
def test_reports_are_off_without_a_dsn(given):
    assert report_settings(given) is None


def test_names_have_defaults():
    asked = report_settings({"SENTRY_DSN": DSN})

    assert asked is not None
    assert (asked.dsn, asked.environment, asked.release) == (DSN, "production", None)
    assert asked.endpoint == "https://sentry.example/path/42"


def test_names_are_read():
    asked = report_settings({"SENTRY_DSN": DSN, "SENTRY_ENVIRONMENT": "staging", "SENTRY_RELEASE": "r1"})

    assert asked is not None
    assert (asked.environment, asked.release) == ("staging", "r1")


@pytest.mark.parametrize(
    "dsn",
    [
        "geheim",
        "ftp://geheim@sentry.example/1",
        "https://sentry.example/1?geheim",
        "https://geheim@/1",
        "https://geheim@sentry.example",
        "https://geheim@sentry.example/x",
        "https://geheim@sentry.example:70000/1",
        "https://geheim@[::1/1",
    ],
)
def test_other_dsns_are_refused_and_not_quoted(dsn):
    with pytest.raises(SettingsError) as refused:
        report_settings({"SENTRY_DSN": dsn})

    assert str(refused.value).startswith("SENTRY_DSN: a URL such as ")
    assert "geheim" not in str(refused.value)
