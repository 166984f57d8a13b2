-- Fails, and changes nothing, while a link has a longer slug or a longer target.
ALTER TABLE links
    DROP CONSTRAINT links_slug_check,
    DROP CONSTRAINT links_long_url_check,
    ADD CONSTRAINT links_slug_check CHECK (length(slug) BETWEEN 1 AND 64),
    ADD CONSTRAINT links_long_url_check CHECK (length(long_url) BETWEEN 1 AND 2048);
