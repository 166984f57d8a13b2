-- What listings are found by. These follow `links` by triggers: link_tags; click_totals, in which every link
-- now has a row; and unindexed, the links whose searched text is to be written. SQLite cannot fold text as
-- app/domain/search.py does, so each writer does it before its commit (app/migrations/sqlite_index.py).
CREATE TABLE link_index (
    id     INTEGER PRIMARY KEY,
    host   TEXT NOT NULL,
    folded TEXT NOT NULL
) STRICT;
CREATE INDEX link_index_host ON link_index (host, id);
-- The trigrams of `folded`, without their places: what is found is compared with the text itself.
CREATE VIRTUAL TABLE link_texts USING fts5(
    folded, content='link_index', content_rowid='id', tokenize='trigram case_sensitive 1', detail=none,
    columnsize=0
);
CREATE TABLE unindexed (id INTEGER PRIMARY KEY) STRICT;
CREATE TABLE link_tags (
    tag TEXT NOT NULL,
    id  INTEGER NOT NULL,
    PRIMARY KEY (tag, id)
) STRICT, WITHOUT ROWID;

-- A link without visits has a row as well: listings by clicks go through one index.
CREATE TABLE click_totals_all (
    slug   TEXT PRIMARY KEY,
    clicks INTEGER NOT NULL CHECK (clicks >= 0)
) STRICT, WITHOUT ROWID;
INSERT INTO click_totals_all SELECT slug, clicks FROM click_totals ORDER BY slug;
DROP TABLE click_totals;
ALTER TABLE click_totals_all RENAME TO click_totals;
INSERT INTO click_totals SELECT slug, 0 FROM links WHERE removed_at IS NULL ORDER BY slug ON CONFLICT DO NOTHING;

CREATE TRIGGER links_added AFTER INSERT ON links BEGIN
    INSERT INTO click_totals VALUES (new.slug, 0) ON CONFLICT DO NOTHING;
    INSERT INTO unindexed VALUES (new.id) ON CONFLICT DO NOTHING;
    INSERT INTO link_tags SELECT value, new.id FROM json_each(new.tags)
    WHERE new.removed_at IS NULL AND type = 'text'
    ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER link_changed AFTER UPDATE OF slug, title, long_url, tags, removed_at ON links
WHEN old.slug IS NOT new.slug OR old.title IS NOT new.title OR old.long_url IS NOT new.long_url
    OR old.tags IS NOT new.tags OR old.removed_at IS NOT new.removed_at
BEGIN
    INSERT INTO unindexed VALUES (new.id) ON CONFLICT DO NOTHING;
    DELETE FROM link_tags WHERE id = old.id AND tag IN (SELECT value FROM json_each(old.tags));
    INSERT INTO link_tags SELECT value, new.id FROM json_each(new.tags)
    WHERE new.removed_at IS NULL AND type = 'text'
    ON CONFLICT DO NOTHING;
END;
CREATE TRIGGER links_deleted AFTER DELETE ON links BEGIN
    INSERT INTO unindexed VALUES (old.id) ON CONFLICT DO NOTHING;
    DELETE FROM link_tags WHERE id = old.id AND tag IN (SELECT value FROM json_each(old.tags));
END;

INSERT INTO link_tags SELECT DISTINCT value, links.id FROM links, json_each(links.tags)
WHERE removed_at IS NULL AND type = 'text' ORDER BY value, links.id;
INSERT INTO unindexed SELECT id FROM links WHERE removed_at IS NULL;
CREATE INDEX links_created ON links (created_at, id) WHERE removed_at IS NULL;
CREATE INDEX links_updated ON links (updated_at, id) WHERE removed_at IS NULL;
CREATE INDEX links_title ON links (title, id) WHERE removed_at IS NULL;
CREATE INDEX links_expires ON links (expires_at, id) WHERE removed_at IS NULL AND expires_at IS NOT NULL;
CREATE INDEX links_ending ON links (id, expires_at) WHERE removed_at IS NULL AND expires_at IS NOT NULL;
CREATE INDEX links_pending ON links (valid_from, id) WHERE removed_at IS NULL AND valid_from IS NOT NULL;
CREATE INDEX links_disabled ON links (id) WHERE removed_at IS NULL AND NOT enabled;
CREATE INDEX links_long_url ON links (long_url);
CREATE INDEX click_totals_clicks ON click_totals (clicks, slug);
