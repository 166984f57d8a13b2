-- Nothing to undo: a table with wider columns serves an earlier version as well, which does not serve
-- the links with longer slugs. The migration can be applied again.
SELECT 1;
