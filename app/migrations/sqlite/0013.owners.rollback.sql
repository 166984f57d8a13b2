-- Forgets whom links were handed to, and what keys are restricted to: those that are may do nothing from then on.
ALTER TABLE api_keys DROP COLUMN rate_limit;
ALTER TABLE api_keys DROP COLUMN allowed_addresses;
ALTER TABLE api_keys DROP COLUMN domains;
ALTER TABLE api_keys DROP COLUMN own_links;
DROP INDEX links_owner;
ALTER TABLE links DROP COLUMN owner;
