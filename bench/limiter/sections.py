"""Parts of a Markdown file that a program writes, between `<!-- name -->` and `<!-- end of name -->`."""

from __future__ import annotations

from pathlib import Path


def put(path: Path, name: str, text: str) -> None:
    """Write *text* as the section *name* of the file: replace it, or append it."""
    first, last = f"<!-- {name} -->", f"<!-- end of {name} -->"
    section = f"{first}\n\n{text.strip()}\n\n{last}"
    old = path.read_text() if path.exists() else ""
    if first in old:
        before, _, rest = old.partition(first)
        path.write_text(before + section + rest.partition(last)[2])
    else:
        path.write_text(f"{old.rstrip()}\n\n{section}\n".lstrip())


def table(head: str, rows: list[tuple[object, ...]]) -> str:
    """Return a table; columns whose title ends with a colon are numbers."""
    titles = [title.strip() for title in head.split("|")]
    rule = ["---:" if title.endswith(":") else "---" for title in titles]
    lines = [[title.rstrip(":") for title in titles], rule, *(map(str, row) for row in rows)]
    return "\n".join(
        f"| {' | '.join(line)} |" if line is not rule else f"|{'|'.join(line)}|" for line in lines
    )
