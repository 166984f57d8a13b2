"""What docs/webhooks.md shows verifies what is sent."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from app.domain.webhooks import shown_secret, signed_headers

PAGE = Path(__file__).parents[2] / "docs" / "webhooks.md"
OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture
def shown() -> dict[str, Any]:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, PAGE.name, "exec"), names)
    return names


def test_shown_code_verifies_messages(shown):
    body = b'{"type":"link.created"}'
    headers = dict(signed_headers("evt_1", datetime.now(UTC), body, [NEW, OLD]))

    for secret in (OLD, NEW):
        assert shown["is_genuine"](shown_secret(secret), headers, body)
        Webhook(shown_secret(secret)).verify(body, headers)
    assert not shown["is_genuine"](shown_secret(b"x" * 32), headers, body)
    assert not shown["is_genuine"](shown_secret(NEW), headers, body + b" ")


def test_shown_code_refuses_old_messages(shown):
    at = datetime.fromtimestamp(time.time() - 600, UTC)
    headers = dict(signed_headers("evt_1", at, b"{}", [NEW]))

    assert not shown["is_genuine"](shown_secret(NEW), headers, b"{}")
