-- Destroys every external id.
ALTER TABLE idempotency DROP COLUMN answer;
DROP INDEX links_reusable;
ALTER TABLE links DROP COLUMN external_id;
