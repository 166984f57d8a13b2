-- Forgets where visitors of links that are over go, and the rules for crawlers that links send.
DROP TRIGGER link_history;
CREATE TRIGGER link_history AFTER UPDATE OF long_url, title, tags, redirect_code, valid_from, expires_at,
    forward_query, enabled, max_visits, external_id, override_query, removed_at ON links
WHEN old.long_url IS NOT new.long_url OR old.title IS NOT new.title OR old.tags IS NOT new.tags
    OR old.redirect_code IS NOT new.redirect_code OR old.valid_from IS NOT new.valid_from
    OR old.expires_at IS NOT new.expires_at OR old.forward_query IS NOT new.forward_query
    OR old.enabled IS NOT new.enabled OR old.max_visits IS NOT new.max_visits
    OR old.external_id IS NOT new.external_id OR old.override_query IS NOT new.override_query
    OR (old.removed_at IS NULL) <> (new.removed_at IS NULL)
BEGIN
    INSERT INTO link_history (
        link, slug, version, replaced, changed_at, changed_by, was_removed, long_url, title, tags, redirect_code,
        valid_from, expires_at, forward_query, enabled, max_visits, external_id, override_query
    ) VALUES (
        new.id, new.slug, new.version, old.version,
        CASE WHEN new.updated_at IS NOT old.updated_at THEN new.updated_at
            ELSE CAST(unixepoch('subsec') * 1000000 AS INTEGER) END,
        CASE WHEN substr(new.changed_by, 1, length(new.version) + 1) = new.version || ' '
            THEN substr(new.changed_by, length(new.version) + 2) END,
        old.removed_at IS NOT NULL, old.long_url, old.title, old.tags, old.redirect_code,
        old.valid_from, old.expires_at, old.forward_query, old.enabled, old.max_visits, old.external_id,
        old.override_query
    );
END;
ALTER TABLE link_history DROP COLUMN robots;
ALTER TABLE link_history DROP COLUMN expired_url;
ALTER TABLE links DROP COLUMN robots;
ALTER TABLE links DROP COLUMN expired_url;
