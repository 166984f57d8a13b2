-- Hosts and slugs that the operator blocks. A removed block stays as a row, so that every gateway reads of
-- the removal; `version` numbers the changes in the order of their commits.
CREATE TABLE blocks (
    kind       text COLLATE "C" NOT NULL CHECK (kind IN ('host', 'slug')),
    value      text COLLATE "C" NOT NULL CHECK (octet_length(value) BETWEEN 1 AND 255),
    version    bigint NOT NULL,
    created_at timestamptz NOT NULL,
    removed    boolean NOT NULL DEFAULT false,
    PRIMARY KEY (kind, value)
);
CREATE UNIQUE INDEX blocks_version ON blocks (version);
