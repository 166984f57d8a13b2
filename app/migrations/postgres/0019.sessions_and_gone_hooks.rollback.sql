-- Ends every session of the console.
ALTER TABLE webhooks DROP COLUMN disabled_reason;
DROP TABLE console_sessions;
