-- Forgets the rules. Links whose slugs have several segments, or other letters than those of ASCII, stay in the table, and nothing reaches them.
ALTER TABLE domains DROP COLUMN robots;
ALTER TABLE domains DROP COLUMN redirect_code;
ALTER TABLE domains DROP COLUMN slug_length;
ALTER TABLE domains DROP COLUMN has_unicode;
ALTER TABLE domains DROP COLUMN unicode;
ALTER TABLE domains DROP COLUMN has_segments;
ALTER TABLE domains DROP COLUMN multi_segment;
