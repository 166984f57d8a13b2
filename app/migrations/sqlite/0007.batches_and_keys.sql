-- The link's name in another system.
ALTER TABLE links ADD COLUMN external_id TEXT CHECK (length(external_id) BETWEEN 1 AND 255);
CREATE UNIQUE INDEX links_external_id ON links (external_id) WHERE external_id IS NOT NULL AND removed_at IS NULL;
-- Finds a link that a request with `reuse` may return.
CREATE INDEX links_reusable ON links (long_url)
    WHERE removed_at IS NULL AND enabled = 1 AND valid_from IS NULL AND expires_at IS NULL AND max_visits IS NULL
        AND external_id IS NULL;
-- What a batch was answered with; null for a request of another kind.
ALTER TABLE idempotency ADD COLUMN answer BLOB;
-- When a key ends by itself and was last used; and the secret that it had before, for as long as that counts.
ALTER TABLE api_keys ADD COLUMN expires_at INTEGER;
ALTER TABLE api_keys ADD COLUMN last_used_at INTEGER;
ALTER TABLE api_keys ADD COLUMN old_secret_hash BLOB CHECK (length(old_secret_hash) = 32);
ALTER TABLE api_keys ADD COLUMN old_until INTEGER;
