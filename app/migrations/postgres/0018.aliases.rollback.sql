-- Forgets which slugs were aliases: they stay taken, and answer 410. A slug that was taken over stays with its link.
DROP TRIGGER link_aliases ON links;
DROP FUNCTION hopgate_aliases_changed;
DROP TRIGGER link_changed ON links;
CREATE TRIGGER link_changed AFTER UPDATE OF slug, title, long_url, tags, removed_at ON links FOR EACH ROW
    WHEN ((OLD.slug, OLD.title, OLD.long_url, OLD.tags, OLD.removed_at)
        IS DISTINCT FROM (NEW.slug, NEW.title, NEW.long_url, NEW.tags, NEW.removed_at))
    EXECUTE FUNCTION hopgate_link_changed();
DROP TRIGGER link_history ON links;
CREATE OR REPLACE FUNCTION hopgate_link_history() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO link_history (
        link, slug, version, replaced, changed_at, changed_by, was_removed, long_url, title, tags, redirect_code,
        valid_from, expires_at, forward_query, enabled, max_visits, external_id, override_query,
        expired_url, robots
    ) VALUES (
        NEW.id, NEW.slug, NEW.version, OLD.version,
        CASE WHEN NEW.updated_at IS DISTINCT FROM OLD.updated_at THEN NEW.updated_at ELSE now() END,
        CASE WHEN split_part(NEW.changed_by, ' ', 1) = NEW.version::text THEN split_part(NEW.changed_by, ' ', 2) END,
        OLD.removed_at IS NOT NULL, OLD.long_url, OLD.title, OLD.tags, OLD.redirect_code,
        OLD.valid_from, OLD.expires_at, OLD.forward_query, OLD.enabled, OLD.max_visits, OLD.external_id,
        OLD.override_query, OLD.expired_url, OLD.robots
    );
    RETURN NULL;
END
$$;
CREATE TRIGGER link_history AFTER UPDATE OF long_url, title, tags, redirect_code, valid_from, expires_at,
    forward_query, enabled, max_visits, external_id, override_query, expired_url, robots,
    removed_at ON links FOR EACH ROW
    WHEN (OLD.long_url IS DISTINCT FROM NEW.long_url OR OLD.title IS DISTINCT FROM NEW.title
        OR OLD.tags IS DISTINCT FROM NEW.tags OR OLD.redirect_code IS DISTINCT FROM NEW.redirect_code
        OR OLD.valid_from IS DISTINCT FROM NEW.valid_from OR OLD.expires_at IS DISTINCT FROM NEW.expires_at
        OR OLD.forward_query IS DISTINCT FROM NEW.forward_query OR OLD.enabled IS DISTINCT FROM NEW.enabled
        OR OLD.max_visits IS DISTINCT FROM NEW.max_visits OR OLD.external_id IS DISTINCT FROM NEW.external_id
        OR OLD.override_query IS DISTINCT FROM NEW.override_query
        OR OLD.expired_url IS DISTINCT FROM NEW.expired_url OR OLD.robots IS DISTINCT FROM NEW.robots
        OR (OLD.removed_at IS NULL) <> (NEW.removed_at IS NULL))
    EXECUTE FUNCTION hopgate_link_history();
DROP TRIGGER link_events_changed ON links;
CREATE TRIGGER link_events_changed AFTER UPDATE OF long_url, title, tags, redirect_code, valid_from, expires_at,
    forward_query, enabled, max_visits, external_id, override_query, expired_url, robots, owner,
    removed_at ON links FOR EACH ROW
    WHEN (OLD.version <> NEW.version AND (
        OLD.long_url IS DISTINCT FROM NEW.long_url OR OLD.title IS DISTINCT FROM NEW.title
        OR OLD.tags IS DISTINCT FROM NEW.tags OR OLD.redirect_code IS DISTINCT FROM NEW.redirect_code
        OR OLD.valid_from IS DISTINCT FROM NEW.valid_from OR OLD.expires_at IS DISTINCT FROM NEW.expires_at
        OR OLD.forward_query IS DISTINCT FROM NEW.forward_query OR OLD.enabled IS DISTINCT FROM NEW.enabled
        OR OLD.max_visits IS DISTINCT FROM NEW.max_visits OR OLD.external_id IS DISTINCT FROM NEW.external_id
        OR OLD.override_query IS DISTINCT FROM NEW.override_query
        OR OLD.expired_url IS DISTINCT FROM NEW.expired_url OR OLD.robots IS DISTINCT FROM NEW.robots
        OR OLD.owner IS DISTINCT FROM NEW.owner
        OR (OLD.removed_at IS NULL) <> (NEW.removed_at IS NULL)))
    EXECUTE FUNCTION hopgate_link_events_changed();
CREATE OR REPLACE VIEW links_searched AS
    SELECT id, hopgate_host(long_url) AS host, text.folded, hopgate_letters(text.folded) AS letters
    FROM links CROSS JOIN LATERAL (
        SELECT hopgate_fold(
            concat_ws(E'\n', regexp_replace(slug, '^~[0-9]+~', ''), title, long_url, array_to_string(tags, E'\n'))
        ) AS folded
        OFFSET 0  -- folded once
    ) AS text
    WHERE removed_at IS NULL;
DROP INDEX IF EXISTS links_alias_of, links_was_of;
ALTER TABLE link_history DROP COLUMN former_slug, DROP COLUMN aliases;
ALTER TABLE links DROP COLUMN aliases, DROP COLUMN alias_of, DROP COLUMN was_of, DROP COLUMN first_version;
