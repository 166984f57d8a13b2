"""Logs: one JSON object a line on standard error, for machines and for `jq`."""

from __future__ import annotations

import logging
import logging.config
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from app.concurrency.origins import origin, request_id, trace_id
from app.domain.redaction import redacted

_encode = msgspec.json.Encoder().encode


class JsonFormatter(logging.Formatter):
    """
    Escapes every part of a record, so that a message cannot forge a line.

    Passwords in URLs and API keys are removed, whatever library quotes them. `extra={"fields": {...}}` adds
    fields to a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as one line of JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(record.getMessage()),
            "pid": record.process,
            **ids(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = redacted(self.formatException(record.exc_info))
        return _encode(line).decode()


def ids() -> dict[str, str]:
    """Return the ids of the work that logs: of its trace and span if it is recorded, and of its request."""
    recorded, trace, request = origin(), trace_id.get(), request_id.get()
    ids = {}
    if recorded is not None:
        ids = {"trace_id": f"{recorded.trace_id:032x}", "span_id": f"{recorded.span_id:016x}"}
    elif trace:
        ids = {"trace_id": f"{trace:032x}"}
    return {**ids, "request_id": request} if request else ids


def configure(level: str, stream: TextIO = sys.stderr) -> None:
    """Send every log of this process to *stream*, from *level* on."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # These log every step of each reconnect; the adapters log it once.
    for name in ("aio_pika", "aiormq", "psycopg.pool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def granian() -> dict[str, Any]:
    """Return a log configuration for granian in the same format; granian sets the level itself."""
    handler = {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "app.telemetry.logs.JsonFormatter"}},
        "handlers": {"console": handler},
        "loggers": {"_granian": {"handlers": ["console"], "propagate": False}},
    }
