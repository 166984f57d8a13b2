-- Destroys the history of links: nothing can be undone.
DROP TRIGGER link_history ON links;
DROP FUNCTION hopgate_link_history;
DROP TABLE link_history;
ALTER TABLE links DROP COLUMN changed_by, DROP COLUMN created_by;
