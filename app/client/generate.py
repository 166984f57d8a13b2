"""
Writes `hopgate_client/sync` from `hopgate_client/aio`, which are the same but for what waits.

    python app/client/generate.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_PACKAGE = Path(__file__).parent / "hopgate_client"
_RULES = (
    (r"\basync (def|with|for)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\baclose\b", "close"),
    (r"\basynccontextmanager\b", "contextmanager"),
    (r"\bAsync(Hopgate|Iterator)\b", r"\1"),
    (r"\bhttpx\.AsyncClient\b", "httpx.Client"),
    (r"\bCallable\[\[float\], Awaitable\[None\]\]", "Callable[[float], None]"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\bimport asyncio\n", ""),
    (r"\bAwaitable, ", ""),
    (r"\baiter_bytes\b", "iter_bytes"),
    (r"\bhopgate_client\.aio\b", "hopgate_client.sync"),
)
_FIRST = '"""The synchronous client: generated from `hopgate_client.aio` by generate.py."""\n'


def generated() -> dict[Path, str]:
    """Return the text of each module."""
    modules = {_PACKAGE / "sync" / "__init__.py": _FIRST}
    for source in sorted((_PACKAGE / "aio").glob("*.py")):
        if source.name != "__init__.py":
            text = source.read_text(encoding="utf-8")
            for pattern, replacement in _RULES:
                text = re.sub(pattern, replacement, text)
            modules[_PACKAGE / "sync" / source.name] = _tidied(text, source.name)
    return modules


def _tidied(text: str, name: str) -> str:
    """Return *text* as the linter wants it: shorter names have other places in imports."""
    for command in (["check", "--quiet", "--select=I", "--fix-only"], ["format"]):
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(_PACKAGE / "sync" / name), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return text


def main() -> None:
    """Write the modules."""
    for path, text in generated().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
