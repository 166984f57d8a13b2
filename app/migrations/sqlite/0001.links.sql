-- Times are microseconds since 1970 in UTC; lists are JSON. Text compares byte by byte.
CREATE TABLE links (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of listings
    slug          TEXT NOT NULL UNIQUE CHECK (length(slug) BETWEEN 1 AND 64),
    long_url      TEXT NOT NULL CHECK (length(long_url) BETWEEN 1 AND 2048),
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
    removed_at    INTEGER
) STRICT;

-- Changes that are not yet delivered to the caches.
CREATE TABLE outbox (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    slug            TEXT NOT NULL,
    version         INTEGER NOT NULL CHECK (version >= 1),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    created_at      INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_due ON outbox (next_attempt_at, id);

CREATE TABLE idempotency (
    scope       TEXT NOT NULL,
    key         TEXT NOT NULL,
    fingerprint BLOB NOT NULL,
    slugs       TEXT NOT NULL CHECK (json_type(slugs) = 'array'),
    created_at  INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency (created_at);

CREATE TABLE api_keys (
    key_id      TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    scopes      TEXT NOT NULL CHECK (json_type(scopes) = 'array'),
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
) STRICT, WITHOUT ROWID;
