-- What a domain says of the slugs of its links, and of crawlers. `has_segments` stays true once `multi_segment` was
-- true, and `has_unicode` once `unicode` was: links that they allowed are still looked up.
SET LOCAL lock_timeout = '5s';  -- what waits for a table makes others wait behind it
ALTER TABLE domains
    ADD COLUMN multi_segment boolean NOT NULL DEFAULT false,
    ADD COLUMN has_segments  boolean NOT NULL DEFAULT false,
    ADD COLUMN unicode       boolean NOT NULL DEFAULT false,
    ADD COLUMN has_unicode   boolean NOT NULL DEFAULT false,
    ADD COLUMN slug_length   smallint CHECK (slug_length BETWEEN 1 AND 64),
    ADD COLUMN redirect_code smallint NOT NULL DEFAULT 302 CHECK (redirect_code IN (301, 302, 307, 308)),
    ADD COLUMN robots        text COLLATE "C" NOT NULL DEFAULT 'allow' CHECK (robots IN ('allow', 'disallow'));
