-- Destroys every external id, and makes keys that expire last for ever: revoke them first.
ALTER TABLE api_keys DROP COLUMN old_until;
ALTER TABLE api_keys DROP COLUMN old_secret_hash;
ALTER TABLE api_keys DROP COLUMN last_used_at;
ALTER TABLE api_keys DROP COLUMN expires_at;
ALTER TABLE idempotency DROP COLUMN answer;
DROP INDEX links_reusable;
ALTER TABLE links DROP COLUMN external_id;
