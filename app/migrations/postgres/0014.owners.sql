-- Who a link was handed to: an empty text is no key. Until then it is null, and the link is owned by the key that
-- made it, so no row that is there is rewritten, and links that earlier releases make have an owner.
SET LOCAL lock_timeout = '5s';  -- what waits for a table makes others wait behind it
ALTER TABLE links ADD COLUMN IF NOT EXISTS owner text COLLATE "C";
-- What keys are restricted to. `domains` are ids; null: all.
ALTER TABLE api_keys
    ADD COLUMN IF NOT EXISTS own_links boolean NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS domains integer[],
    ADD COLUMN IF NOT EXISTS allowed_addresses text[],
    ADD COLUMN IF NOT EXISTS rate_limit text;
-- Outside of a transaction, each alone: gateways read and write meanwhile.
DROP INDEX CONCURRENTLY IF EXISTS links_owner;
-- next
CREATE INDEX CONCURRENTLY links_owner ON links ((nullif(coalesce(owner, nullif(created_by, 'cli')), '')), id)
    WHERE removed_at IS NULL;
-- next
ANALYZE links;
