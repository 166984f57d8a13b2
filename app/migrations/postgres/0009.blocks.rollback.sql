-- Forgets every block: what was blocked redirects again.
DROP TABLE blocks;
