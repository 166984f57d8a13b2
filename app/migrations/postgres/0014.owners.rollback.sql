-- Forgets whom links were handed to, and what keys are restricted to: those that are may do nothing from then on.
ALTER TABLE api_keys
    DROP COLUMN rate_limit,
    DROP COLUMN allowed_addresses,
    DROP COLUMN domains,
    DROP COLUMN own_links;
DROP INDEX IF EXISTS links_owner;
ALTER TABLE links DROP COLUMN owner;
