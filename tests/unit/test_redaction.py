"""Secrets that libraries quote are in no log line."""

from __future__ import annotations

import io
import json
import logging
import secrets

import pytest

from app.domain.redaction import redacted
from app.service import keys
from app.telemetry.logs import JsonFormatter
from tests.conftest import NOW


def test_key_that_is_issued_is_redacted():
    text, record = keys.issue("tests", keys.ALL_SCOPES, now=NOW, choice=secrets.choice)

    assert redacted(f"'{text}', {text}") == f"'hg_{record.key_id}_***', hg_{record.key_id}_***"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://u:p@h:5432/d", "postgresql://***@h:5432/d"),
        (
            "cannot reach amqp://:p%40@a,b/%2F or redis://x:y@c",
            "cannot reach amqp://***@a,b/%2F or redis://***@c",
        ),
        ("https://key@sentry.example/1", "https://***@sentry.example/1"),
        ("GET /path@x, hg_ and hg_links_total", "GET /path@x, hg_ and hg_links_total"),
    ],
)
def test_credentials_of_urls_are_redacted(text, expected):
    assert redacted(text) == expected


def test_log_line_with_a_traceback_has_no_secret():
    """Whatever library raised it, and wherever the message stands."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("tests.redaction")
    logger.addHandler(handler)
    url, key = "redis://:geheim@cache:6379/0", f"hg_{'a' * 8}_{'b' * 43}_{'c' * 6}"
    try:
        try:
            raise ConnectionError(f"cannot connect to {url} with {key}")
        except ConnectionError:
            logger.exception("failed: cannot connect to %s with %s", url, key)
    finally:
        logger.removeHandler(handler)

    line = json.loads(stream.getvalue())
    assert "geheim" not in str(line)
    assert "b" * 43 not in str(line)
    assert line["message"] == "failed: cannot connect to redis://***@cache:6379/0 with hg_aaaaaaaa_***"
    assert "ConnectionError" in line["exception"]
