-- Sessions of the console. The id is what a browser holds; its SHA-256 alone is here, and signs nothing in.
-- secret_hash is the one that the key had at the sign-in: a session ends with that secret.
CREATE TABLE console_sessions (
    id_hash     BLOB PRIMARY KEY CHECK (length(id_hash) = 32),
    key_id      TEXT NOT NULL,
    secret_hash BLOB NOT NULL CHECK (length(secret_hash) = 32),
    created_at  INTEGER NOT NULL,
    expires_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX console_sessions_key ON console_sessions (key_id, created_at);

-- Why a webhook was disabled by the worker: its receiver answers 410. Webhooks that a client disables have none.
ALTER TABLE webhooks ADD COLUMN disabled_reason TEXT;
