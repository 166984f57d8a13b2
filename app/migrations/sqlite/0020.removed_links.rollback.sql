-- Destroys nothing: the totals of all links take longer.
DROP INDEX links_removed;
