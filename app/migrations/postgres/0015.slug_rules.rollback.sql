-- Forgets the rules. Links whose slugs have several segments, or other letters than those of ASCII, stay in the table, and nothing reaches them.
ALTER TABLE domains
    DROP COLUMN robots,
    DROP COLUMN redirect_code,
    DROP COLUMN slug_length,
    DROP COLUMN has_unicode,
    DROP COLUMN unicode,
    DROP COLUMN has_segments,
    DROP COLUMN multi_segment;
