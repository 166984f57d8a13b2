"""docker-compose.yml and .env as Compose reads them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
OURS = ("gateway-1", "gateway-2", "worker", "migrate")
_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?::(-|\?)([^}]*))?\})")


def compose() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def interpolated(value, variables):
    """Return *value* with its ${VARIABLES} substituted, by the rules of Compose."""
    if isinstance(value, dict):
        return {key: interpolated(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def substitute(match: re.Match[str]) -> str:
        name, rule, text = match.groups()
        if name is None:
            return "$"
        if variables.get(name):
            return variables[name]
        assert rule == "-", f"{name} {text}"
        return text

    return _VARIABLE.sub(substitute, value)


def variables_of(text: str) -> dict[str, tuple[str, str]]:
    """Return each variable in *text*: "-" and its default, or "?" and the error message."""
    return {name: (rule, rest) for name, rule, rest in _VARIABLE.findall(text) if name}


def written_by_the_documented_command(directory: Path) -> dict[str, str]:
    """Create .env with the command of .env.example, and return its variables."""
    example = (ROOT / ".env.example").read_text()
    lines = re.findall(r"^#   (.*)$", example, re.MULTILINE)
    (directory / ".env.example").write_text(example)
    subprocess.run(["sh", "-euc", "\n".join(lines)], cwd=directory, check=True)
    assert (directory / ".env").stat().st_mode & 0o077 == 0
    text = (directory / ".env").read_text()
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
