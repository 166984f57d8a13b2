-- What happens to links, for webhooks and the event stream. Triggers write it, so that every release and every
-- program that changes links does. Only one connection writes at a time, so positions have the order of commits.
CREATE TABLE link_events (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    uid      TEXT NOT NULL DEFAULT (lower(hex(randomblob(16)))),  -- a position may come again after a restore
    kind     TEXT NOT NULL,
    slug     TEXT NOT NULL,
    version  INTEGER NOT NULL,
    past     INTEGER NOT NULL,  -- the latest row of link_history by then: later ones hold the state of the event
    at       INTEGER NOT NULL
) STRICT;
-- Links that will expire, or have and no event says so.
CREATE TABLE link_expiries (
    slug       TEXT PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX link_expiries_due ON link_expiries (expires_at);
INSERT INTO link_expiries (slug, expires_at)
SELECT slug, expires_at FROM links
WHERE removed_at IS NULL AND expires_at > CAST(unixepoch('subsec') * 1000000 AS INTEGER);
-- The versions of links whose last visit was leased: a visit that is returned may be leased again.
CREATE TABLE link_limits_reached (
    slug    TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (slug, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE webhooks (
    id         TEXT PRIMARY KEY,
    url        TEXT NOT NULL,
    name       TEXT NOT NULL,
    kinds      TEXT NOT NULL,  -- none: all
    domain     TEXT,
    tag        TEXT,
    enabled    INTEGER NOT NULL,
    secret     BLOB NOT NULL,
    old_secret BLOB,
    old_until  INTEGER,
    position   INTEGER NOT NULL,  -- the events up to it have deliveries
    version    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE TABLE webhook_deliveries (
    webhook         TEXT NOT NULL,
    position        INTEGER NOT NULL,
    slug            TEXT NOT NULL,
    state           TEXT NOT NULL CHECK (state IN ('pending', 'delivered', 'dead')),
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    created_at      INTEGER NOT NULL,
    attempted_at    INTEGER,
    status          INTEGER,
    problem         TEXT,
    PRIMARY KEY (webhook, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (webhook, next_attempt_at) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_link ON webhook_deliveries (webhook, slug, position) WHERE state = 'pending';

CREATE TRIGGER link_events_added AFTER INSERT ON links WHEN new.removed_at IS NULL
BEGIN
    INSERT INTO link_events (kind, slug, version, past, at)
    VALUES ('link.created', new.slug, new.version, 0, new.updated_at);
    INSERT INTO link_expiries (slug, expires_at)
    SELECT new.slug, new.expires_at WHERE new.expires_at > CAST(unixepoch('subsec') * 1000000 AS INTEGER)
    ON CONFLICT (slug) DO UPDATE SET expires_at = excluded.expires_at;
END;
CREATE TRIGGER link_events_changed AFTER UPDATE OF long_url, title, tags, redirect_code, valid_from, expires_at,
    forward_query, enabled, max_visits, external_id, override_query, expired_url, robots, owner, removed_at ON links
WHEN old.version <> new.version AND (old.removed_at IS NULL OR new.removed_at IS NULL) AND (
    old.long_url IS NOT new.long_url OR old.title IS NOT new.title OR old.tags IS NOT new.tags
    OR old.redirect_code IS NOT new.redirect_code OR old.valid_from IS NOT new.valid_from
    OR old.expires_at IS NOT new.expires_at OR old.forward_query IS NOT new.forward_query
    OR old.enabled IS NOT new.enabled OR old.max_visits IS NOT new.max_visits
    OR old.external_id IS NOT new.external_id OR old.override_query IS NOT new.override_query
    OR old.expired_url IS NOT new.expired_url OR old.robots IS NOT new.robots OR old.owner IS NOT new.owner
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
CREATE TRIGGER link_events_limit AFTER UPDATE OF visits_taken, max_visits ON links
WHEN new.removed_at IS NULL AND new.visits_taken >= new.max_visits
    AND (old.max_visits IS NULL OR old.visits_taken < old.max_visits)
    AND NOT EXISTS (SELECT 1 FROM link_limits_reached WHERE slug = new.slug AND version = new.version)
BEGIN
    INSERT INTO link_limits_reached (slug, version) VALUES (new.slug, new.version);
    INSERT INTO link_events (kind, slug, version, past, at) VALUES (
        'link.limit_reached', new.slug, new.version,
        coalesce((SELECT max(id) FROM link_history WHERE link = new.id), 0),
        CAST(unixepoch('subsec') * 1000000 AS INTEGER)
    );
END;
