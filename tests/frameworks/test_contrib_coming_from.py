"""The page for users of other limiters: our half of each pair works as the text says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

PAGE = Path(__file__).parents[2] / "docs" / "coming-from.md"
SECTIONS = {
    title: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for title, text in re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
}


def after(title: str) -> SimpleNamespace:
    """Run the second block of a section."""
    names: dict[str, object] = {"__name__": "after"}
    exec(compile(SECTIONS[title][1], f"{title}, after", "exec"), names)
    return SimpleNamespace(**names)


def test_each_section_is_a_pair():
    assert set(SECTIONS) == {"slowapi", "Flask-Limiter", "limits", "throttled-py", "aiolimiter"}
    for title, blocks in SECTIONS.items():
        assert len(blocks) == 2, title
        compile(blocks[0], f"{title}, before", "exec")
        assert "hopgate_limiter" in blocks[1]
        assert "hopgate_limiter" not in blocks[0]


@pytest.mark.parametrize("title", ["limits", "throttled-py", "aiolimiter"])
def test_first_halves_of_installed_packages_run(title):
    exec(compile(SECTIONS[title][0], f"{title}, before", "exec"), {"__name__": "before"})


async def test_fastapi_application():
    app = after("slowapi").app
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        found = [(await client.get("/search")).status_code for _ in range(6)]
        exempt = [(await client.get("/healthz")).status_code for _ in range(120)]
    assert found == [200] * 5 + [429]
    assert exempt == [200] * 120


def test_flask_application():
    client = after("Flask-Limiter").app.test_client()
    assert [client.get("/search").status_code for _ in range(6)] == [200] * 5 + [429]
    assert [client.get("/healthz").status_code for _ in range(120)] == [200] * 120


def test_direct_use():
    may_send = after("limits").may_send
    assert [may_send("alice") for _ in range(4)] == [True, True, True, False]
    assert may_send("bob")


def test_decorator():
    try_report = after("throttled-py").try_report
    assert [try_report() for _ in range(4)] == ["done", "done", "done", None]


async def test_waiting():
    module = after("aiolimiter")
    assert [await module.within(1, number) for number in range(3)] == [0, 1, 2]
    with pytest.raises(asyncio.TimeoutError):
        await module.within(0.01, 3)
