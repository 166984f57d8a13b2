-- Slugs of other shorteners have up to 128 characters, targets up to 8,192.
-- The new checks are weaker than the old ones: no row that is there needs to be read.
ALTER TABLE links
    DROP CONSTRAINT links_slug_check,
    DROP CONSTRAINT links_long_url_check,
    ADD CONSTRAINT links_slug_check CHECK (length(slug) BETWEEN 1 AND 128) NOT VALID,
    ADD CONSTRAINT links_long_url_check CHECK (length(long_url) BETWEEN 1 AND 8192) NOT VALID;
