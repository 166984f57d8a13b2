-- Destroys every limit of visits: links that have one redirect without end.
ALTER TABLE links DROP COLUMN visits_taken;
ALTER TABLE links DROP COLUMN max_visits;
