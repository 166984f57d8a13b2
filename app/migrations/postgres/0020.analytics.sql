-- Whether statistics describe the visits of a link. A default of the column, so no row needs to be rewritten or read.
SET LOCAL lock_timeout = '5s';  -- what waits for a table makes others wait behind it
ALTER TABLE links ADD COLUMN IF NOT EXISTS analytics boolean NOT NULL DEFAULT true;
ALTER TABLE link_history ADD COLUMN IF NOT EXISTS analytics boolean NOT NULL DEFAULT true;
CREATE OR REPLACE FUNCTION hopgate_link_history() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO link_history (
        link, slug, version, replaced, changed_at, changed_by, was_removed, long_url, title, tags, redirect_code,
        valid_from, expires_at, forward_query, enabled, max_visits, external_id, override_query,
        expired_url, robots, former_slug, aliases, analytics
    ) VALUES (
        NEW.id, NEW.slug, NEW.version, OLD.version,
        CASE WHEN NEW.updated_at IS DISTINCT FROM OLD.updated_at THEN NEW.updated_at ELSE now() END,
        CASE WHEN split_part(NEW.changed_by, ' ', 1) = NEW.version::text THEN split_part(NEW.changed_by, ' ', 2) END,
        OLD.removed_at IS NOT NULL, OLD.long_url, OLD.title, OLD.tags, OLD.redirect_code,
        OLD.valid_from, OLD.expires_at, OLD.forward_query, OLD.enabled, OLD.max_visits, OLD.external_id,
        OLD.override_query, OLD.expired_url, OLD.robots, OLD.slug, OLD.aliases, OLD.analytics
    );
    RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS link_history ON links;
CREATE TRIGGER link_history AFTER UPDATE OF long_url, title, tags, redirect_code, valid_from, expires_at,
    forward_query, enabled, max_visits, external_id, override_query, expired_url, robots, analytics,
    removed_at, slug, aliases ON links FOR EACH ROW
    WHEN (OLD.long_url IS DISTINCT FROM NEW.long_url OR OLD.title IS DISTINCT FROM NEW.title
        OR OLD.tags IS DISTINCT FROM NEW.tags OR OLD.redirect_code IS DISTINCT FROM NEW.redirect_code
        OR OLD.valid_from IS DISTINCT FROM NEW.valid_from OR OLD.expires_at IS DISTINCT FROM NEW.expires_at
        OR OLD.forward_query IS DISTINCT FROM NEW.forward_query OR OLD.enabled IS DISTINCT FROM NEW.enabled
        OR OLD.max_visits IS DISTINCT FROM NEW.max_visits OR OLD.external_id IS DISTINCT FROM NEW.external_id
        OR OLD.override_query IS DISTINCT FROM NEW.override_query
        OR OLD.expired_url IS DISTINCT FROM NEW.expired_url OR OLD.robots IS DISTINCT FROM NEW.robots
        OR OLD.analytics IS DISTINCT FROM NEW.analytics
        OR (OLD.removed_at IS NULL) <> (NEW.removed_at IS NULL)
        OR ((OLD.slug <> NEW.slug OR OLD.aliases <> NEW.aliases) AND OLD.version <> NEW.version))
    EXECUTE FUNCTION hopgate_link_history();
-- To webhooks and the event stream, other slugs are a change of the link; a row of an alias is none.
DROP TRIGGER IF EXISTS link_events_changed ON links;
CREATE TRIGGER link_events_changed AFTER UPDATE OF long_url, title, tags, redirect_code, valid_from, expires_at,
    forward_query, enabled, max_visits, external_id, override_query, expired_url, robots, analytics, owner,
    removed_at, slug, aliases ON links FOR EACH ROW
    WHEN (OLD.version <> NEW.version AND (
        OLD.long_url IS DISTINCT FROM NEW.long_url OR OLD.title IS DISTINCT FROM NEW.title
        OR OLD.tags IS DISTINCT FROM NEW.tags OR OLD.redirect_code IS DISTINCT FROM NEW.redirect_code
        OR OLD.valid_from IS DISTINCT FROM NEW.valid_from OR OLD.expires_at IS DISTINCT FROM NEW.expires_at
        OR OLD.forward_query IS DISTINCT FROM NEW.forward_query OR OLD.enabled IS DISTINCT FROM NEW.enabled
        OR OLD.max_visits IS DISTINCT FROM NEW.max_visits OR OLD.external_id IS DISTINCT FROM NEW.external_id
        OR OLD.override_query IS DISTINCT FROM NEW.override_query
        OR OLD.expired_url IS DISTINCT FROM NEW.expired_url OR OLD.robots IS DISTINCT FROM NEW.robots
        OR OLD.analytics IS DISTINCT FROM NEW.analytics
        OR OLD.owner IS DISTINCT FROM NEW.owner OR OLD.slug <> NEW.slug OR OLD.aliases <> NEW.aliases
        OR (OLD.removed_at IS NULL) <> (NEW.removed_at IS NULL)))
    EXECUTE FUNCTION hopgate_link_events_changed();

-- Outside of a transaction, each alone: gateways read and write meanwhile.
-- What is forgotten is found by this one. In blocks that were used again old hours and new ones stand together, so a
-- BRIN index finds all of them. Of an expression, as a plain index of hours would be taken for the hours of a link.
DROP INDEX CONCURRENTLY IF EXISTS visit_counts_utc;
-- next
CREATE INDEX CONCURRENTLY visit_counts_utc ON visit_counts ((hour AT TIME ZONE 'UTC'));
-- next
DROP INDEX CONCURRENTLY IF EXISTS visit_counts_hour;
