-- What listings are found by. Three tables follow `links` by triggers, so that every release and every
-- program that writes links keeps them: link_index (the searched text and the host of a link that is not
-- removed), link_tags (its tags) and click_totals, in which every link now has a row.
--
-- Until the line "Outside of a transaction" this is one transaction, and takes milliseconds. All of it can
-- be applied again, as it must if what comes after is interrupted.
SET LOCAL lock_timeout = '5s';  -- what waits for a table makes others wait behind it
CREATE EXTENSION IF NOT EXISTS pg_trgm;

-- The steps of app/domain/search.py. The locale of the database plays no part: lower-case letters are those
-- of ICU, or of the best that this server has.
DO $$
DECLARE
    rules text;
BEGIN
    SELECT format('%I.%I', nspname, collname) INTO rules
    FROM pg_collation JOIN pg_namespace ON pg_namespace.oid = collnamespace
    WHERE nspname = 'pg_catalog' AND collencoding IN (-1, pg_char_to_encoding(getdatabaseencoding()))
        AND collname IN ('und-x-icu', 'pg_c_utf8', 'C.utf8', 'C.UTF-8')
    ORDER BY array_position(ARRAY['und-x-icu', 'pg_c_utf8', 'C.utf8', 'C.UTF-8'], collname::text) LIMIT 1;
    EXECUTE format($function$
        CREATE OR REPLACE FUNCTION hopgate_fold(value text) RETURNS text
        LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $body$
        BEGIN
            RETURN normalize(
                replace(replace(replace(lower(normalize(value, NFKC) COLLATE %s), E'i\u0307', 'i'), 'ς', 'σ'), 'ß', 'ss'),
                NFKC
            );
        END
        $body$
    $function$, coalesce(rules, 'pg_catalog."default"'));
END
$$;

-- pg_trgm reads letters and digits only, and in some locales those of ASCII only. So it gets one of them
-- for each character; what is found is compared with the text itself.
CREATE OR REPLACE FUNCTION hopgate_letters(folded text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    letters text := translate(
        folded, E'\n !"#$%&''()*+,-./:;<=>?@[\\]^_`{|}~', 'qzjxkvwyqzjxkvwyqzjxkvwyqzjxkvwyqz'
    );
BEGIN
    IF letters !~ '[^a-z0-9]' THEN
        RETURN letters;
    END IF;
    RETURN (
        SELECT string_agg(
            CASE WHEN one ~ '[a-z0-9]' THEN one
                ELSE substr('abcdefghijklmnopqrstuvwxyz0123456789', 1 + ascii(one) % 36, 1) END,
            '' ORDER BY place
        )
        FROM regexp_split_to_table(letters, '') WITH ORDINALITY AS split(one, place)
    );
END
$$;

CREATE OR REPLACE FUNCTION hopgate_host(long_url text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    -- A longer one is no host, and more than an index takes.
    RETURN left(coalesce(substring(long_url from '^https?://(\[[^]]*\]|[^/?#:]+)'), ''), 255);
END
$$;

CREATE TABLE IF NOT EXISTS link_index (
    id      bigint PRIMARY KEY,
    host    text COLLATE "C" NOT NULL,
    folded  text COLLATE "C" NOT NULL,
    letters text COLLATE "C" NOT NULL
);
CREATE TABLE IF NOT EXISTS link_tags (
    tag text COLLATE "C",
    id  bigint,
    PRIMARY KEY (tag, id)
);
ALTER TABLE link_index ALTER COLUMN letters SET STATISTICS 1000;  -- how rare a term is
CREATE INDEX IF NOT EXISTS link_index_host ON link_index (host, id);

-- A link without visits has a row as well: listings by clicks go through one index.
ALTER TABLE click_totals
    DROP CONSTRAINT IF EXISTS click_totals_clicks_check,
    ADD CONSTRAINT click_totals_clicks_check CHECK (clicks >= 0) NOT VALID;

-- What link_index has to hold.
CREATE OR REPLACE VIEW links_searched AS
    SELECT id, hopgate_host(long_url) AS host, text.folded, hopgate_letters(text.folded) AS letters
    FROM links CROSS JOIN LATERAL (
        SELECT hopgate_fold(concat_ws(E'\n', slug, title, long_url, array_to_string(tags, E'\n'))) AS folded
        OFFSET 0  -- folded once
    ) AS text
    WHERE removed_at IS NULL;
-- As their owner: a role that was granted its tables one by one needs no rights on these to write links.
CREATE OR REPLACE FUNCTION hopgate_links_added() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    -- In the order in which clicks are added, so that neither waits for the other.
    INSERT INTO click_totals (slug, clicks) SELECT slug, 0 FROM added ORDER BY slug COLLATE "C"
    ON CONFLICT DO NOTHING;
    INSERT INTO link_index SELECT * FROM links_searched WHERE id IN (SELECT id FROM added);
    INSERT INTO link_tags SELECT DISTINCT tag, id FROM added CROSS JOIN LATERAL unnest(tags) AS tag
    WHERE removed_at IS NULL AND octet_length(tag) <= 2000;  -- no null, and no more than an index takes
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION hopgate_link_changed() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF NEW.removed_at IS NOT NULL THEN
        DELETE FROM link_index WHERE id = NEW.id;
        DELETE FROM link_tags WHERE id = NEW.id AND tag = ANY(OLD.tags);
    ELSE
        DELETE FROM link_tags WHERE id = NEW.id AND tag = ANY(OLD.tags)
            AND tag <> ALL(array_remove(NEW.tags, NULL));
        INSERT INTO link_index SELECT * FROM links_searched WHERE id = NEW.id
        ON CONFLICT (id) DO UPDATE
        SET host = excluded.host, folded = excluded.folded, letters = excluded.letters;
        INSERT INTO link_tags SELECT DISTINCT tag, NEW.id FROM unnest(NEW.tags) AS tag
        WHERE octet_length(tag) <= 2000 ON CONFLICT DO NOTHING;
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION hopgate_links_deleted() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    DELETE FROM link_index USING deleted WHERE link_index.id = deleted.id;
    DELETE FROM link_tags USING deleted WHERE link_tags.id = deleted.id AND tag = ANY(deleted.tags);
    RETURN NULL;
END
$$;

DROP TRIGGER IF EXISTS links_added ON links;
CREATE TRIGGER links_added AFTER INSERT ON links REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION hopgate_links_added();
DROP TRIGGER IF EXISTS link_changed ON links;
CREATE TRIGGER link_changed AFTER UPDATE OF slug, title, long_url, tags, removed_at ON links FOR EACH ROW
    WHEN ((OLD.slug, OLD.title, OLD.long_url, OLD.tags, OLD.removed_at)
        IS DISTINCT FROM (NEW.slug, NEW.title, NEW.long_url, NEW.tags, NEW.removed_at))
    EXECUTE FUNCTION hopgate_link_changed();
DROP TRIGGER IF EXISTS links_deleted ON links;
CREATE TRIGGER links_deleted AFTER DELETE ON links REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION hopgate_links_deleted();

-- Outside of a transaction, each alone: gateways read and write meanwhile.
-- The links that are there, some thousands at a time: a change of one waits for at most that many.
DO $$
DECLARE
    first bigint := -1;
    last bigint;
BEGIN
    LOOP
        SELECT max(id) INTO last FROM (
            SELECT id FROM links WHERE removed_at IS NULL AND id > first ORDER BY id LIMIT 2000
        ) AS batch;
        EXIT WHEN last IS NULL;
        -- Locked in the order in which changes lock them.
        PERFORM 1 FROM links WHERE removed_at IS NULL AND id > first AND id <= last
        ORDER BY slug COLLATE "C" FOR UPDATE;
        INSERT INTO link_index SELECT * FROM links_searched WHERE id > first AND id <= last
        ON CONFLICT DO NOTHING;
        INSERT INTO link_tags SELECT DISTINCT tag, id FROM links CROSS JOIN LATERAL unnest(tags) AS tag
        WHERE removed_at IS NULL AND id > first AND id <= last AND octet_length(tag) <= 2000
        ON CONFLICT DO NOTHING;
        INSERT INTO click_totals (slug, clicks)
        SELECT slug, 0 FROM links WHERE removed_at IS NULL AND id > first AND id <= last
        ORDER BY slug COLLATE "C" ON CONFLICT DO NOTHING;
        first := last;
        COMMIT;
    END LOOP;
END
$$;
-- next
DROP INDEX CONCURRENTLY IF EXISTS links_created;
-- next
CREATE INDEX CONCURRENTLY links_created ON links (created_at, id) WHERE removed_at IS NULL;
-- next
DROP INDEX CONCURRENTLY IF EXISTS links_updated;
-- next
CREATE INDEX CONCURRENTLY links_updated ON links (updated_at, id) WHERE removed_at IS NULL;
-- next
DROP INDEX CONCURRENTLY IF EXISTS links_title;
-- next
CREATE INDEX CONCURRENTLY links_title ON links (title COLLATE "C", id) WHERE removed_at IS NULL;
-- next
DROP INDEX CONCURRENTLY IF EXISTS links_expires;
-- next
CREATE INDEX CONCURRENTLY links_expires ON links (expires_at, id)
    WHERE removed_at IS NULL AND expires_at IS NOT NULL;
-- next
DROP INDEX CONCURRENTLY IF EXISTS links_ending;
-- next
CREATE INDEX CONCURRENTLY links_ending ON links (id, expires_at)
    WHERE removed_at IS NULL AND expires_at IS NOT NULL;
-- next
DROP INDEX CONCURRENTLY IF EXISTS links_pending;
-- next
CREATE INDEX CONCURRENTLY links_pending ON links (valid_from, id)
    WHERE removed_at IS NULL AND valid_from IS NOT NULL;
-- next
DROP INDEX CONCURRENTLY IF EXISTS links_disabled;
-- next
CREATE INDEX CONCURRENTLY links_disabled ON links (id) WHERE removed_at IS NULL AND NOT enabled;
-- next
DROP INDEX CONCURRENTLY IF EXISTS links_long_url;
-- next
CREATE INDEX CONCURRENTLY links_long_url ON links USING hash (long_url);
-- next
DROP INDEX CONCURRENTLY IF EXISTS click_totals_clicks;
-- next
CREATE INDEX CONCURRENTLY click_totals_clicks ON click_totals (clicks, slug);
-- next
-- The extension may be in a schema of its own.
SELECT set_config('search_path', concat_ws(', ', current_setting('search_path'), quote_ident(nspname)), false)
FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'pg_trgm';
-- next
DROP INDEX CONCURRENTLY IF EXISTS link_index_letters;
-- next
CREATE INDEX CONCURRENTLY link_index_letters ON link_index USING gin (letters gin_trgm_ops);
-- next
ANALYZE links, link_index, link_tags, click_totals;
