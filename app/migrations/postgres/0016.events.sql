-- What happens to links, for webhooks and the event stream. Triggers write it, so that every release and every
-- program that changes links does. No row that is there is read or written before the commit.
SET LOCAL lock_timeout = '5s';  -- what waits for a table makes others wait behind it

-- Events in the order in which they were written, which is not that of their commits. A worker moves them.
CREATE TABLE IF NOT EXISTS link_events_new (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind    text COLLATE "C" NOT NULL,
    slug    text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    past    bigint NOT NULL,  -- the latest row of link_history by then: later ones hold the state of the event
    at      timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02);
-- Numbered in the order of commits: a reader that has seen a position has seen every one before it. A position
-- may come again after a restore, a uid does not.
CREATE TABLE IF NOT EXISTS link_events (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    uid      uuid NOT NULL DEFAULT gen_random_uuid(),
    kind     text COLLATE "C" NOT NULL,
    slug     text COLLATE "C" NOT NULL,
    version  bigint NOT NULL,
    past     bigint NOT NULL,
    at       timestamptz NOT NULL
);
-- Links that will expire, or have and no event says so.
CREATE TABLE IF NOT EXISTS link_expiries (
    slug       text COLLATE "C" PRIMARY KEY,
    expires_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS link_expiries_due ON link_expiries (expires_at);
-- The versions of links whose last visit was leased: a visit that is returned may be leased again.
CREATE TABLE IF NOT EXISTS link_limits_reached (
    slug    text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (slug, version)
);

CREATE TABLE IF NOT EXISTS webhooks (
    id         text COLLATE "C" PRIMARY KEY,
    url        text NOT NULL,
    name       text NOT NULL,
    kinds      text[] NOT NULL,  -- none: all
    domain     text COLLATE "C",
    tag        text,
    enabled    boolean NOT NULL,
    secret     bytea NOT NULL,
    old_secret bytea,
    old_until  timestamptz,
    position   bigint NOT NULL,  -- the events up to it have deliveries
    version    bigint NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE TABLE IF NOT EXISTS webhook_deliveries (
    webhook         text COLLATE "C" NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    position        bigint NOT NULL,
    slug            text COLLATE "C" NOT NULL,
    state           text COLLATE "C" NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts        integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    created_at      timestamptz NOT NULL,
    attempted_at    timestamptz,
    status          integer,
    problem         text,
    PRIMARY KEY (webhook, position)
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS webhook_deliveries_due ON webhook_deliveries (webhook, next_attempt_at)
    WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS webhook_deliveries_link ON webhook_deliveries (webhook, slug, position)
    WHERE state = 'pending';

-- As their owner: a role that was granted its tables one by one needs no rights on these to write links.
CREATE OR REPLACE FUNCTION hopgate_link_events_added() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO link_events_new (kind, slug, version, past, at)
    SELECT 'link.created', slug, version, 0, updated_at FROM added WHERE removed_at IS NULL ORDER BY id;
    INSERT INTO link_expiries (slug, expires_at)
    SELECT slug, expires_at FROM added WHERE removed_at IS NULL AND expires_at > now()
    ON CONFLICT (slug) DO UPDATE SET expires_at = excluded.expires_at;
    RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS link_events_added ON links;
CREATE TRIGGER link_events_added AFTER INSERT ON links REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION hopgate_link_events_added();

CREATE OR REPLACE FUNCTION hopgate_link_events_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF OLD.removed_at IS NULL OR NEW.removed_at IS NULL THEN
        INSERT INTO link_events_new (kind, slug, version, past, at) VALUES (
            CASE WHEN NEW.removed_at IS NULL THEN 'link.changed' ELSE 'link.removed' END, NEW.slug, NEW.version,
            coalesce((SELECT max(id) FROM link_history WHERE link = NEW.id), 0),
            CASE WHEN NEW.updated_at IS DISTINCT FROM OLD.updated_at THEN NEW.updated_at ELSE now() END
        );
    END IF;
    IF NEW.removed_at IS NOT NULL OR NEW.expires_at IS NULL THEN
        IF OLD.expires_at IS NOT NULL THEN
            DELETE FROM link_expiries WHERE slug = NEW.slug;
        END IF;
    ELSIF NEW.expires_at IS DISTINCT FROM OLD.expires_at OR OLD.removed_at IS NOT NULL THEN
        INSERT INTO link_expiries (slug, expires_at) VALUES (NEW.slug, NEW.expires_at)
        ON CONFLICT (slug) DO UPDATE SET expires_at = excluded.expires_at;
    END IF;
    RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS link_events_changed ON links;
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

CREATE OR REPLACE FUNCTION hopgate_link_events_limit() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO link_limits_reached (slug, version) VALUES (NEW.slug, NEW.version) ON CONFLICT DO NOTHING;
    IF FOUND THEN
        INSERT INTO link_events_new (kind, slug, version, past, at) VALUES (
            'link.limit_reached', NEW.slug, NEW.version,
            coalesce((SELECT max(id) FROM link_history WHERE link = NEW.id), 0), now()
        );
    END IF;
    RETURN NULL;
END
$$;
DROP TRIGGER IF EXISTS link_events_limit ON links;
CREATE TRIGGER link_events_limit AFTER UPDATE OF visits_taken, max_visits ON links FOR EACH ROW
    WHEN (NEW.removed_at IS NULL AND NEW.visits_taken >= NEW.max_visits
        AND (OLD.max_visits IS NULL OR OLD.visits_taken < OLD.max_visits))
    EXECUTE FUNCTION hopgate_link_events_limit();
-- Outside of a transaction, each alone: gateways read and write meanwhile.
INSERT INTO link_expiries (slug, expires_at)
SELECT slug, expires_at FROM links WHERE removed_at IS NULL AND expires_at > now() ON CONFLICT DO NOTHING;
