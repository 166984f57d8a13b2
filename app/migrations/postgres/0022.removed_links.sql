-- What has been removed: the clicks of all links are those of every slug without these.
-- Outside of a transaction, each alone: gateways read and write meanwhile.
DROP INDEX CONCURRENTLY IF EXISTS links_removed;
-- next
CREATE INDEX CONCURRENTLY links_removed ON links (slug) WHERE removed_at IS NOT NULL;
