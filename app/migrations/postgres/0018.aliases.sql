-- Further slugs of links: each has a row of its own, which is removed to every earlier release, so that its slug is
-- taken and nothing lists it. No row that is there is written. All of it can be applied again, as it must if what
-- comes after is interrupted.
SET LOCAL lock_timeout = '5s';  -- what waits for a table makes others wait behind it
ALTER TABLE links
    ADD COLUMN IF NOT EXISTS aliases text[] COLLATE "C" NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS alias_of text COLLATE "C",  -- the slug of the link that this is an alias of
    ADD COLUMN IF NOT EXISTS was_of text COLLATE "C",  -- the slug of the link that this was a slug of
    -- Greater than 1 where the slug was that of a removed link before.
    ADD COLUMN IF NOT EXISTS first_version bigint NOT NULL DEFAULT 1;
-- Null in the rows of earlier releases: that change left them as they were.
ALTER TABLE link_history
    ADD COLUMN IF NOT EXISTS former_slug text COLLATE "C",
    ADD COLUMN IF NOT EXISTS aliases text[];

-- The caches hold a resolution for each alias, of the version of its link. As its owner: see 0007.
CREATE OR REPLACE FUNCTION hopgate_aliases_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO outbox (slug, version, next_attempt_at)
    SELECT alias, NEW.version, now() + interval '2 s' FROM unnest(NEW.aliases) AS alias;
    RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS link_aliases ON links;
CREATE TRIGGER link_aliases AFTER UPDATE OF version, aliases ON links FOR EACH ROW
    WHEN (cardinality(NEW.aliases) > 0) EXECUTE FUNCTION hopgate_aliases_changed();

-- Searched by every slug that people see.
CREATE OR REPLACE VIEW links_searched AS
    SELECT id, hopgate_host(long_url) AS host, text.folded, hopgate_letters(text.folded) AS letters
    FROM links CROSS JOIN LATERAL (
        SELECT hopgate_fold(
            concat_ws(
                E'\n', regexp_replace(slug, '^~[0-9]+~', ''), title, long_url, array_to_string(tags, E'\n'),
                (SELECT string_agg(regexp_replace(alias, '^~[0-9]+~', ''), E'\n') FROM unnest(aliases) AS alias)
            )
        ) AS folded
        OFFSET 0  -- folded once
    ) AS text
    WHERE removed_at IS NULL;
DROP TRIGGER IF EXISTS link_changed ON links;
CREATE TRIGGER link_changed AFTER UPDATE OF slug, title, long_url, tags, removed_at, aliases ON links FOR EACH ROW
    WHEN ((OLD.slug, OLD.title, OLD.long_url, OLD.tags, OLD.removed_at, OLD.aliases)
        IS DISTINCT FROM (NEW.slug, NEW.title, NEW.long_url, NEW.tags, NEW.removed_at, NEW.aliases))
    EXECUTE FUNCTION hopgate_link_changed();

CREATE OR REPLACE FUNCTION hopgate_link_history() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO link_history (
        link, slug, version, replaced, changed_at, changed_by, was_removed, long_url, title, tags, redirect_code,
        valid_from, expires_at, forward_query, enabled, max_visits, external_id, override_query,
        expired_url, robots, former_slug, aliases
    ) VALUES (
        NEW.id, NEW.slug, NEW.version, OLD.version,
        CASE WHEN NEW.updated_at IS DISTINCT FROM OLD.updated_at THEN NEW.updated_at ELSE now() END,
        CASE WHEN split_part(NEW.changed_by, ' ', 1) = NEW.version::text THEN split_part(NEW.changed_by, ' ', 2) END,
        OLD.removed_at IS NOT NULL, OLD.long_url, OLD.title, OLD.tags, OLD.redirect_code,
        OLD.valid_from, OLD.expires_at, OLD.forward_query, OLD.enabled, OLD.max_visits, OLD.external_id,
        OLD.override_query, OLD.expired_url, OLD.robots, OLD.slug, OLD.aliases
    );
    RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS link_history ON links;
CREATE TRIGGER link_history AFTER UPDATE OF long_url, title, tags, redirect_code, valid_from, expires_at,
    forward_query, enabled, max_visits, external_id, override_query, expired_url, robots,
    removed_at, slug, aliases ON links FOR EACH ROW
    WHEN (OLD.long_url IS DISTINCT FROM NEW.long_url OR OLD.title IS DISTINCT FROM NEW.title
        OR OLD.tags IS DISTINCT FROM NEW.tags OR OLD.redirect_code IS DISTINCT FROM NEW.redirect_code
        OR OLD.valid_from IS DISTINCT FROM NEW.valid_from OR OLD.expires_at IS DISTINCT FROM NEW.expires_at
        OR OLD.forward_query IS DISTINCT FROM NEW.forward_query OR OLD.enabled IS DISTINCT FROM NEW.enabled
        OR OLD.max_visits IS DISTINCT FROM NEW.max_visits OR OLD.external_id IS DISTINCT FROM NEW.external_id
        OR OLD.override_query IS DISTINCT FROM NEW.override_query
        OR OLD.expired_url IS DISTINCT FROM NEW.expired_url OR OLD.robots IS DISTINCT FROM NEW.robots
        OR (OLD.removed_at IS NULL) <> (NEW.removed_at IS NULL)
        OR ((OLD.slug <> NEW.slug OR OLD.aliases <> NEW.aliases) AND OLD.version <> NEW.version))
    EXECUTE FUNCTION hopgate_link_history();
-- To webhooks and the event stream, other slugs are a change of the link; a row of an alias is none.
DROP TRIGGER IF EXISTS link_events_changed ON links;
CREATE TRIGGER link_events_changed AFTER UPDATE OF long_url, title, tags, redirect_code, valid_from, expires_at,
    forward_query, enabled, max_visits, external_id, override_query, expired_url, robots, owner,
    removed_at, slug, aliases ON links FOR EACH ROW
    WHEN (OLD.version <> NEW.version AND (
        OLD.long_url IS DISTINCT FROM NEW.long_url OR OLD.title IS DISTINCT FROM NEW.title
        OR OLD.tags IS DISTINCT FROM NEW.tags OR OLD.redirect_code IS DISTINCT FROM NEW.redirect_code
        OR OLD.valid_from IS DISTINCT FROM NEW.valid_from OR OLD.expires_at IS DISTINCT FROM NEW.expires_at
        OR OLD.forward_query IS DISTINCT FROM NEW.forward_query OR OLD.enabled IS DISTINCT FROM NEW.enabled
        OR OLD.max_visits IS DISTINCT FROM NEW.max_visits OR OLD.external_id IS DISTINCT FROM NEW.external_id
        OR OLD.override_query IS DISTINCT FROM NEW.override_query
        OR OLD.expired_url IS DISTINCT FROM NEW.expired_url OR OLD.robots IS DISTINCT FROM NEW.robots
        OR OLD.owner IS DISTINCT FROM NEW.owner OR OLD.slug <> NEW.slug OR OLD.aliases <> NEW.aliases
        OR (OLD.removed_at IS NULL) <> (NEW.removed_at IS NULL)))
    EXECUTE FUNCTION hopgate_link_events_changed();

-- Outside of a transaction, each alone: gateways read and write meanwhile.
DROP INDEX CONCURRENTLY IF EXISTS links_alias_of;
-- next
CREATE INDEX CONCURRENTLY links_alias_of ON links (alias_of) WHERE alias_of IS NOT NULL;
-- next
DROP INDEX CONCURRENTLY IF EXISTS links_was_of;
-- next
CREATE INDEX CONCURRENTLY links_was_of ON links (was_of) WHERE was_of IS NOT NULL;
