-- Forgets every domain. Links of other domains than the default one stay in the table, and nothing reaches them.
DROP TABLE domains;
CREATE OR REPLACE VIEW links_searched AS
    SELECT id, hopgate_host(long_url) AS host, text.folded, hopgate_letters(text.folded) AS letters
    FROM links CROSS JOIN LATERAL (
        SELECT hopgate_fold(
            concat_ws(E'\n', slug, title, long_url, array_to_string(tags, E'\n'))
        ) AS folded
        OFFSET 0  -- folded once
    ) AS text
    WHERE removed_at IS NULL;
