-- What indexes a new link does the same with less work: nothing that is stored changes, and no table is locked.

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
            -- ASCII alone, which every normal form leaves as it is: that is nearly all there is.
            IF octet_length(value) = length(value) THEN
                RETURN lower(value COLLATE "C");
            END IF;
            RETURN normalize(
                replace(replace(replace(lower(normalize(value, NFKC) COLLATE %s), E'i\u0307', 'i'), 'ς', 'σ'), 'ß', 'ss'),
                NFKC
            );
        END
        $body$
    $function$, coalesce(rules, 'pg_catalog."default"'));
END
$$;

CREATE OR REPLACE FUNCTION hopgate_letters(folded text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    -- Each character of the text is compared with each of these, so first the few that most texts have.
    letters text := translate(folded, E'\n ./:-?=_&%+', 'qzyqzwwkkywk');
BEGIN
    IF letters !~ '[^a-z0-9]' THEN
        RETURN letters;
    END IF;
    letters := translate(
        folded, E'\n !"#$%&''()*+,-./:;<=>?@[\\]^_`{|}~', 'qzjxkvwyqzjxkvwyqzjxkvwyqzjxkvwyqz'
    );
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
DECLARE
    -- The usual one: of a page, without a port.
    host text := split_part(long_url, '/', 3);
BEGIN
    IF starts_with(long_url, 'https://') AND length(host) BETWEEN 1 AND 255 AND translate(host, '?#:[', '') = host THEN
        RETURN host;
    END IF;
    -- A longer one is no host, and more than an index takes.
    RETURN left(coalesce(substring(long_url from '^https?://(\[[^]]*\]|[^/?#:]+)'), ''), 255);
END
$$;

-- The text of a link that searches compare, before it is folded.
CREATE OR REPLACE FUNCTION hopgate_searched(slug text, title text, long_url text, tags text[], aliases text[])
RETURNS text LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    name text := regexp_replace(slug, '^~[0-9]+~', '');
BEGIN
    IF cardinality(aliases) = 0 THEN
        RETURN concat_ws(E'\n', name, title, long_url, array_to_string(tags, E'\n'));
    END IF;
    RETURN concat_ws(
        E'\n', name, title, long_url, array_to_string(tags, E'\n'),
        (SELECT string_agg(regexp_replace(alias, '^~[0-9]+~', ''), E'\n') FROM unnest(aliases) AS alias)
    );
END
$$;
CREATE OR REPLACE VIEW links_searched AS
    SELECT id, hopgate_host(long_url) AS host, text.folded, hopgate_letters(text.folded) AS letters
    FROM links CROSS JOIN LATERAL (
        SELECT hopgate_fold(hopgate_searched(slug, title, long_url, tags, aliases)) AS folded
        OFFSET 0  -- folded once
    ) AS text
    WHERE removed_at IS NULL;

CREATE OR REPLACE FUNCTION hopgate_links_added() RETURNS trigger LANGUAGE plpgsql
SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    -- In the order in which clicks are added, so that neither waits for the other.
    INSERT INTO click_totals (slug, clicks) SELECT slug, 0 FROM added ORDER BY slug COLLATE "C"
    ON CONFLICT DO NOTHING;
    -- As in links_searched, from the rows at hand.
    INSERT INTO link_index
    SELECT id, hopgate_host(long_url), folded, hopgate_letters(folded) FROM (
        SELECT id, long_url, hopgate_fold(hopgate_searched(slug, title, long_url, tags, aliases)) AS folded
        FROM added WHERE removed_at IS NULL OFFSET 0  -- folded once
    ) AS text;
    INSERT INTO link_tags SELECT DISTINCT tag, id FROM added CROSS JOIN LATERAL unnest(tags) AS tag
    WHERE removed_at IS NULL AND octet_length(tag) <= 2000;  -- no null, and no more than an index takes
    RETURN NULL;
END
$$;
