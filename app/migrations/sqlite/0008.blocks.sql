-- Hosts and slugs that the operator blocks. A removed block stays as a row, so that every gateway reads of
-- the removal; `version` numbers the changes in the order of their commits.
CREATE TABLE blocks (
    kind       TEXT NOT NULL CHECK (kind IN ('host', 'slug')),
    value      TEXT NOT NULL CHECK (length(value) BETWEEN 1 AND 255),
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    removed    INTEGER NOT NULL DEFAULT 0 CHECK (removed IN (0, 1)),
    PRIMARY KEY (kind, value)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX blocks_version ON blocks (version);
