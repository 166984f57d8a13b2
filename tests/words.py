"""
Keep the field's words: name each line of the tree that uses a word of the list below.

Usage: python -m tests.words [FOLDER]
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# A pattern, and what to write instead. A bracket keeps each pattern from matching itself.
_RULES = {
    r"\bwho[e]ver\b|\bno[b]ody\b|\bsome[b]ody\b|\bany[b]ody\b": "name the component, client or operator",
    r"(?:^|[.;:,(#\"—]\s+|\"\"\"\s*)[Ww]h[o] (?!is|are\b)[a-z]+s?\b": "name the subject: 'a client that ...'",
    r"\b(?:is|are|was|were) tol[d]\b|\bhea[r]s? of\b|\bhear[d] of\b": "receives, is notified of, has seen",
    r"def test\w*_(?:wh[o]|whoeve[r]|nobod[y]|somebod[y]|anybod[y])_": "name the subject of the test",
    r"\blef[t] alone\b": "the circuit breaker is open",
    r"\bfirst cach[e]\b|\bhot lin[k]s?\b|\bHotLin[k]s?\b": "L1 cache",
    r"\bEntranc[e]\b|\bCourie[r]\b|\bharves[t]\b|\bRedirectLan[e]\b": "a name that was given up",
    r"\"\"\"Se[e] `\w+\.\w+`\.": "leave the docstring out: a method inherits its port's contract",
}
_WRITTEN = {".py", ".pyi", ".rs", ".lua", ".md", ".sql", ".sh", ".yml", ".toml", ".conf", ".html"}
# Records of earlier runs, and texts that others have written.
_RECORDS = ("tests/data/", "tests/faults/REPORT.md", "CHANGELOG.md", "requirements/")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line that has to be written anew."""

    path: str
    line: int
    text: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text.strip()[:100]}  ({self.advice})"


def findings(folder: Path) -> Iterator[Finding]:
    """Give each line below *folder*, a git checkout, that breaks a rule; ignored files are left out."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    for path in sorted(listed.stdout.split("\n")):
        file = folder / path
        is_written = file.suffix in _WRITTEN or file.name in {"Makefile", "Dockerfile"}
        if is_written and file.is_file() and not path.startswith(_RECORDS):
            yield from _in_file(path, file.read_text(encoding="utf-8", errors="replace"))


def _in_file(path: str, text: str) -> Iterator[Finding]:
    for number, line in enumerate(text.splitlines(), start=1):
        for pattern, advice in _RULES.items():
            if re.search(pattern, line):
                yield Finding(path, number, line, advice)


def main() -> None:
    """Print what was found; exit with 1 if there is anything."""
    found = list(findings(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
    for finding in found:
        print(finding)
    if found:
        raise SystemExit(f"{len(found)} lines do not use the field's words (see CONTRIBUTING.md)")


if __name__ == "__main__":
    main()
