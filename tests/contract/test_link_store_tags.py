"""Tags that triggers keep, where a program has written past them."""

from __future__ import annotations

from app.domain.link import Slug
from app.ports import Store
from tests.contract.store_database import Database
from tests.contract.store_links import NOW, added


async def test_tag_that_its_link_lacks_is_forgotten(store: Store, database: Database):
    """A change of such a tag must neither go on for ever nor change the link."""
    await added(store, "sound")
    database.execute("INSERT INTO link_tags (tag, id) SELECT 'stale', id FROM links")
    database.execute("INSERT INTO link_tags (tag, id) VALUES ('stale', 12345)")

    assert list(await store.retag("stale", "other", limit=10, now=NOW)) == []
    assert list(await store.tags(after=None, limit=10)) == []
    found = await store.get(Slug("sound"))
    assert found is not None
    assert found.version == 1
