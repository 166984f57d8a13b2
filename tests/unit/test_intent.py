"""Why a request was made, by its headers."""

from __future__ import annotations

import pytest

from app.web.intent import Intent, intent_of


class Headers:
    """The headers of a request as granian shows them: `get` knows the first line of each."""

    def __init__(self, *lines: tuple[str, str]) -> None:
        self._lines = lines

    def get(self, name: str) -> str | None:
        return next(iter(self.get_all(name)), None)

    def get_all(self, name: str) -> list[str]:
        return [value for key, value in self._lines if key == name]


@pytest.mark.parametrize(
    ("lines", "intent"),
    [
        ((), Intent.VISIT),
        ((("sec-purpose", "prefetch;prerender"),), Intent.PREFETCH),
        ((("sec-purpose", "other"), ("sec-purpose", "prefetch")), Intent.PREFETCH),
        ((("purpose", ""), ("x-purpose", "preview")), Intent.PREFETCH),
        ((("user-agent", "curl/8"), ("user-agent", "Twitterbot/1.0")), Intent.PREVIEW),
        ((("sec-purpose", "fetch"), ("user-agent", "Firefox/128")), Intent.VISIT),
    ],
)
def test_every_line_of_a_header_tells_the_intent(lines, intent):
    assert intent_of(Headers(*lines)) is intent


@pytest.mark.parametrize(
    "agent",
    [
        "facebookexternalhit/1.1;line-poker/1.0",
        "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (compatible; line-poker/1.0)",
        "Tumblr/14.0.835.186",
        "Mozilla/5.0 (X11; Linux x86_64) HeadlessChrome/120.0 Safari/537.36",
        # What opens the links of a mail before its reader does.
        "Barracuda Sentinel (EE)",
        "Mozilla/5.0 (compatible; Proofpoint URL Defense)",
        "Mozilla/5.0 (Windows NT 10.0; Mimecast-URLProtect)",
    ],
)
def test_programs_that_only_look(agent):
    assert intent_of(Headers(("user-agent", agent))) is Intent.PREVIEW
