"""
Writes the searched text of the links that a transaction has changed, in a SQLite file.

Triggers note them in `unindexed`, whichever program writes. Hopgate indexes them before its own commits, so
that a link and its text appear together; what another program left is indexed by the next commit.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from app.domain.link_key import name_of
from app.domain.search import searched_text
from app.domain.target import host_of

if TYPE_CHECKING:
    import apsw

_BATCH = 1000

# As bytes: a text that is not UTF-8 must not keep every other link from being written.
_PENDING = f"""
    SELECT unindexed.id, CAST(links.slug AS BLOB), CAST(links.title AS BLOB), CAST(links.long_url AS BLOB),
        CAST(links.tags AS BLOB), CAST(links.aliases AS BLOB), links.removed_at, link_index.folded
    FROM unindexed LEFT JOIN links USING (id) LEFT JOIN link_index USING (id)
    ORDER BY unindexed.id LIMIT {_BATCH}
"""
_FORGET_TEXT = "INSERT INTO link_texts (link_texts, rowid, folded) VALUES ('delete', ?, ?)"


def index_links(db: apsw.Connection) -> None:
    """Index every link that is noted; part of the caller's transaction. Cheap if there is none."""
    while rows := _pending(db):
        stale = [(id_, folded) for id_, *_, folded in rows if folded is not None]
        if stale:
            db.executemany(_FORGET_TEXT, stale)
            db.executemany("DELETE FROM link_index WHERE id = ?", [(id_,) for id_, _ in stale])
        texts = [
            (id_, *_texts(columns))
            for id_, *columns, removed_at, _ in rows
            if columns[0] is not None and removed_at is None
        ]
        db.executemany("INSERT INTO link_index VALUES (?, ?, ?)", texts)
        db.executemany("INSERT INTO link_texts (rowid, folded) VALUES (?, ?)", [(t[0], t[2]) for t in texts])
        db.execute("DELETE FROM unindexed WHERE id <= ?", (rows[-1][0],))


def _texts(columns: Sequence[bytes]) -> tuple[str, str]:
    """Return host and searched text of a link, as far as they can be read: any program may have stored it."""
    slug, title, long_url, tags, aliases = (column.decode("utf-8", "replace") for column in columns)
    readable = [*_listed(tags), *map(name_of, _listed(aliases))]
    # An escape of JSON may be half a character, which no UTF-8 has.
    text = "\n".join(readable).encode("utf-8", "replace").decode()
    return host_of(long_url), searched_text(name_of(slug), title, long_url, [text] if readable else [])


def _listed(text: str) -> list[str]:
    try:
        stored = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return [one for one in stored if isinstance(one, str)] if isinstance(stored, list) else []


def _pending(db: apsw.Connection) -> list[Any]:
    return db.execute(_PENDING).fetchall()
