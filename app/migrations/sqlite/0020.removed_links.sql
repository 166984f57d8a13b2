-- What has been removed: the clicks of all links are those of every slug without these.
CREATE INDEX links_removed ON links (slug) WHERE removed_at IS NOT NULL;
