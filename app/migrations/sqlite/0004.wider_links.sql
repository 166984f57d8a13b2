-- Slugs of other shorteners have up to 128 characters, targets up to 8,192. SQLite cannot change a
-- check, so the table is made anew.
CREATE TABLE links_wider (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of listings
    slug          TEXT NOT NULL UNIQUE CHECK (length(slug) BETWEEN 1 AND 128),
    long_url      TEXT NOT NULL CHECK (length(long_url) BETWEEN 1 AND 8192),
    title         TEXT NOT NULL,
    tags          TEXT NOT NULL CHECK (json_type(tags) = 'array'),
    redirect_code INTEGER NOT NULL CHECK (redirect_code IN (301, 302, 307, 308)),
    valid_from    INTEGER,
    expires_at    INTEGER,
    forward_query INTEGER NOT NULL CHECK (forward_query IN (0, 1)),
    enabled       INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    -- Versions travel through Lua, whose numbers are doubles.
    version       INTEGER NOT NULL CHECK (version BETWEEN 1 AND 9007199254740991),
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    removed_at    INTEGER,
    max_visits    INTEGER CHECK (max_visits BETWEEN 1 AND 9007199254740991),
    visits_taken  INTEGER NOT NULL DEFAULT 0 CHECK (visits_taken >= 0)
) STRICT;
INSERT INTO links_wider SELECT * FROM links ORDER BY id;
DROP TABLE links;
ALTER TABLE links_wider RENAME TO links;
