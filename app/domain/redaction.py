"""Removes secrets from text that logs and reports quote: errors of drivers quote URLs, and programs keys."""

from __future__ import annotations

import re

_CREDENTIALS = re.compile(r"//[^/\s@]*@")
# What `app.service.keys` issues: the id stays, as it names a key without opening anything.
_KEY = re.compile(r"\bhg_([0-9A-Za-z]{1,16})_[0-9A-Za-z]+_[0-9A-Za-z]+")


def redacted(text: str) -> str:
    """Return *text* without the credentials of URLs and the secrets of API keys in it."""
    return _KEY.sub(r"hg_\1_***", _CREDENTIALS.sub("//***@", text))
