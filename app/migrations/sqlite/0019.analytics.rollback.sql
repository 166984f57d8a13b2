-- Visits of every link are described again.
DROP TRIGGER link_history;
CREATE TRIGGER link_history AFTER UPDATE OF long_url, title, tags, redirect_code, valid_from, expires_at,
    forward_query, enabled, max_visits, external_id, override_query, expired_url, robots, removed_at,
    slug, aliases ON links
WHEN old.long_url IS NOT new.long_url OR old.title IS NOT new.title OR old.tags IS NOT new.tags
    OR old.redirect_code IS NOT new.redirect_code OR old.valid_from IS NOT new.valid_from
    OR old.expires_at IS NOT new.expires_at OR old.forward_query IS NOT new.forward_query
    OR old.enabled IS NOT new.enabled OR old.max_visits IS NOT new.max_visits
    OR old.external_id IS NOT new.external_id OR old.override_query IS NOT new.override_query
    OR old.expired_url IS NOT new.expired_url
    OR old.robots IS NOT new.robots OR (old.removed_at IS NULL) <> (new.removed_at IS NULL)
    OR ((old.slug <> new.slug OR old.aliases <> new.aliases) AND old.version <> new.version)
BEGIN
    INSERT INTO link_history (
        link, slug, version, replaced, changed_at, changed_by, was_removed, long_url, title, tags, redirect_code,
        valid_from, expires_at, forward_query, enabled, max_visits, external_id, override_query,
        expired_url, robots, former_slug, aliases
    ) VALUES (
        new.id, new.slug, new.version, old.version,
        CASE WHEN new.updated_at IS NOT old.updated_at THEN new.updated_at
            ELSE CAST(unixepoch('subsec') * 1000000 AS INTEGER) END,
        CASE WHEN substr(new.changed_by, 1, length(new.version) + 1) = new.version || ' '
            THEN substr(new.changed_by, length(new.version) + 2) END,
        old.removed_at IS NOT NULL, old.long_url, old.title, old.tags, old.redirect_code,
        old.valid_from, old.expires_at, old.forward_query, old.enabled, old.max_visits, old.external_id,
        old.override_query, old.expired_url, old.robots, old.slug, old.aliases
    );
END;
-- To webhooks and the event stream, other slugs are a change of the link; a row of an alias is none.
DROP TRIGGER link_events_changed;
CREATE TRIGGER link_events_changed AFTER UPDATE OF long_url, title, tags, redirect_code, valid_from, expires_at,
    forward_query, enabled, max_visits, external_id, override_query, expired_url, robots, owner, removed_at,
    slug, aliases ON links
WHEN old.version <> new.version AND (old.removed_at IS NULL OR new.removed_at IS NULL) AND (
    old.long_url IS NOT new.long_url OR old.title IS NOT new.title OR old.tags IS NOT new.tags
    OR old.redirect_code IS NOT new.redirect_code OR old.valid_from IS NOT new.valid_from
    OR old.expires_at IS NOT new.expires_at OR old.forward_query IS NOT new.forward_query
    OR old.enabled IS NOT new.enabled OR old.max_visits IS NOT new.max_visits
    OR old.external_id IS NOT new.external_id OR old.override_query IS NOT new.override_query
    OR old.expired_url IS NOT new.expired_url OR old.robots IS NOT new.robots OR old.owner IS NOT new.owner
    OR old.slug <> new.slug OR old.aliases <> new.aliases
    OR (old.removed_at IS NULL) <> (new.removed_at IS NULL))
BEGIN
    INSERT INTO link_events (kind, slug, version, past, at) VALUES (
        CASE WHEN new.removed_at IS NULL THEN 'link.changed' ELSE 'link.removed' END, new.slug, new.version,
        coalesce((SELECT max(id) FROM link_history WHERE link = new.id), 0),
        CASE WHEN new.updated_at IS NOT old.updated_at THEN new.updated_at
            ELSE CAST(unixepoch('subsec') * 1000000 AS INTEGER) END
    );
    DELETE FROM link_expiries WHERE slug = new.slug AND (new.removed_at IS NOT NULL OR new.expires_at IS NULL);
    INSERT INTO link_expiries (slug, expires_at)
    SELECT new.slug, new.expires_at WHERE new.removed_at IS NULL AND new.expires_at IS NOT NULL
        AND (new.expires_at IS NOT old.expires_at OR old.removed_at IS NOT NULL)
    ON CONFLICT (slug) DO UPDATE SET expires_at = excluded.expires_at;
END;
ALTER TABLE link_history DROP COLUMN analytics;
ALTER TABLE links DROP COLUMN analytics;
