-- Who a link was handed to: an empty text is no key. Until then it is null, and the link is owned by the key that
-- made it, so no row that is there is rewritten, and links that earlier releases make have an owner.
ALTER TABLE links ADD COLUMN owner TEXT;
CREATE INDEX links_owner ON links (nullif(coalesce(owner, nullif(created_by, 'cli')), ''), id)
    WHERE removed_at IS NULL;
-- What keys are restricted to. `domains` are ids; null: all.
ALTER TABLE api_keys ADD COLUMN own_links INTEGER NOT NULL DEFAULT 0 CHECK (own_links IN (0, 1));
ALTER TABLE api_keys ADD COLUMN domains TEXT CHECK (json_type(domains) = 'array');
ALTER TABLE api_keys ADD COLUMN allowed_addresses TEXT CHECK (json_type(allowed_addresses) = 'array');
ALTER TABLE api_keys ADD COLUMN rate_limit TEXT;
