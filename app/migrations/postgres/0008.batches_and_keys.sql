-- The link's name in another system: its column is empty so far, so no row needs to be rewritten.
ALTER TABLE links
    ADD COLUMN external_id text COLLATE "C",
    ADD CONSTRAINT links_external_id_check CHECK (length(external_id) BETWEEN 1 AND 255) NOT VALID;
CREATE UNIQUE INDEX links_external_id ON links (external_id) WHERE external_id IS NOT NULL AND removed_at IS NULL;
-- Finds a link that a request with `reuse` may return. By a hash: targets are longer than an entry may be.
CREATE INDEX links_reusable ON links (hashtextextended(long_url, 0))
    WHERE removed_at IS NULL AND enabled AND valid_from IS NULL AND expires_at IS NULL AND max_visits IS NULL
        AND external_id IS NULL;
-- What a batch was answered with; null for a request of another kind.
ALTER TABLE idempotency ADD COLUMN answer bytea;
-- When a key ends by itself and was last used; and the secret that it had before, for as long as that counts.
ALTER TABLE api_keys
    ADD COLUMN expires_at timestamptz,
    ADD COLUMN last_used_at timestamptz,
    ADD COLUMN old_secret_hash bytea CHECK (length(old_secret_hash) = 32),
    ADD COLUMN old_until timestamptz;
