-- The history that the links have. A cached copy is of one epoch, and serves in no other.
-- It may be there: `pg_restore --clean` of a dump without this table leaves it, as it must.
CREATE TABLE IF NOT EXISTS store_epoch (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    epoch bigint NOT NULL,
    -- The server, timeline, database and table that `epoch` was given to: see app/adapters/postgres/epoch.py.
    identity text NOT NULL
);
INSERT INTO store_epoch (epoch, identity) SELECT 0, concat_ws(
    '/',
    (SELECT system_identifier FROM pg_control_system()),
    left(pg_walfile_name(pg_current_wal_flush_lsn()), 8),
    (SELECT oid FROM pg_database WHERE datname = current_database()),
    'links'::regclass::oid
) ON CONFLICT DO NOTHING;
