-- Forgets every domain. Links of other domains than the default one stay in the table, and nothing reaches them.
DROP TABLE domains;
