-- The hosts that links are visited at, each with slugs of its own: the slug of a link begins with ~ID~ unless its
-- domain is the default one, whose host is that of the base URL. A removed domain stays as a row, so that its
-- number is never another's; `version` numbers the changes in the order of their commits.
CREATE TABLE domains (
    id              INTEGER PRIMARY KEY CHECK (id BETWEEN 0 AND 999999999),
    host            TEXT NOT NULL UNIQUE CHECK (length(host) <= 253),
    case_sensitive  INTEGER NOT NULL CHECK (case_sensitive IN (0, 1)),
    root_url        TEXT,
    not_found_url   TEXT,
    expired_url     TEXT,
    min_slug_length INTEGER NOT NULL CHECK (min_slug_length BETWEEN 1 AND 64),
    version         INTEGER NOT NULL UNIQUE,
    created_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    removed         INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1))
) STRICT;
INSERT INTO domains (id, host, case_sensitive, min_slug_length, version, created_at, updated_at)
VALUES (0, '', 1, 3, 1, unixepoch() * 1000000, unixepoch() * 1000000);
