-- What a domain says of the slugs of its links, and of crawlers. `has_segments` stays true once `multi_segment` was
-- true, and `has_unicode` once `unicode` was: links that they allowed are still looked up.
ALTER TABLE domains ADD COLUMN multi_segment INTEGER NOT NULL DEFAULT 0 CHECK (multi_segment IN (0, 1));
ALTER TABLE domains ADD COLUMN has_segments INTEGER NOT NULL DEFAULT 0 CHECK (has_segments IN (0, 1));
ALTER TABLE domains ADD COLUMN unicode INTEGER NOT NULL DEFAULT 0 CHECK (unicode IN (0, 1));
ALTER TABLE domains ADD COLUMN has_unicode INTEGER NOT NULL DEFAULT 0 CHECK (has_unicode IN (0, 1));
ALTER TABLE domains ADD COLUMN slug_length INTEGER CHECK (slug_length BETWEEN 1 AND 64);
ALTER TABLE domains ADD COLUMN redirect_code INTEGER NOT NULL DEFAULT 302
    CHECK (redirect_code IN (301, 302, 307, 308));
ALTER TABLE domains ADD COLUMN robots TEXT NOT NULL DEFAULT 'allow' CHECK (robots IN ('allow', 'disallow'));
