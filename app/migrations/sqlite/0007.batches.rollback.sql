-- Destroys every external id.
ALTER TABLE idempotency DROP COLUMN answer;
DROP INDEX links_reusable;
DROP INDEX links_external_id;
ALTER TABLE links DROP COLUMN external_id;
