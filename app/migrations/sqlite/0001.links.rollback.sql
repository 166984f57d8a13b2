-- Destroys every link, key and event.
DROP TABLE api_keys;
DROP TABLE idempotency;
DROP TABLE outbox;
DROP TABLE links;
