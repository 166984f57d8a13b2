DROP TRIGGER links_added;
DROP TRIGGER link_changed;
DROP TRIGGER links_deleted;
DROP TABLE link_texts;
DROP TABLE link_index;
DROP TABLE link_tags;
DROP TABLE unindexed;
DROP INDEX links_created;
DROP INDEX links_updated;
DROP INDEX links_title;
DROP INDEX links_expires;
DROP INDEX links_ending;
DROP INDEX links_pending;
DROP INDEX links_disabled;
DROP INDEX links_long_url;
CREATE TABLE click_totals_once (
    slug   TEXT PRIMARY KEY,
    clicks INTEGER NOT NULL CHECK (clicks >= 1)
) STRICT, WITHOUT ROWID;
INSERT INTO click_totals_once SELECT slug, clicks FROM click_totals WHERE clicks > 0;
DROP TABLE click_totals;
ALTER TABLE click_totals_once RENAME TO click_totals;
