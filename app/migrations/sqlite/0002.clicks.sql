-- How often each link was visited: in all, and by the hour (UTC).
CREATE TABLE click_totals (
    slug   TEXT PRIMARY KEY,
    clicks INTEGER NOT NULL CHECK (clicks >= 1)
) STRICT, WITHOUT ROWID;

CREATE TABLE click_hours (
    slug   TEXT NOT NULL,
    hour   INTEGER NOT NULL,
    clicks INTEGER NOT NULL CHECK (clicks >= 1),
    PRIMARY KEY (slug, hour)
) STRICT, WITHOUT ROWID;

-- Which batches of clicks were added, so that none is added twice.
CREATE TABLE click_batches (
    id        TEXT PRIMARY KEY,
    folded_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX click_batches_age ON click_batches (folded_at);
