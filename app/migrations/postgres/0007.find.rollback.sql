DROP TRIGGER links_added ON links;
DROP TRIGGER link_changed ON links;
DROP TRIGGER links_deleted ON links;
DROP FUNCTION hopgate_links_added, hopgate_link_changed, hopgate_links_deleted;
DROP VIEW links_searched;
DROP FUNCTION hopgate_host, hopgate_letters, hopgate_fold;
DROP INDEX IF EXISTS links_created, links_updated, links_title, links_expires, links_ending, links_pending, links_disabled,
    links_long_url, click_totals_clicks;
DROP TABLE link_index, link_tags;
DELETE FROM click_totals WHERE clicks = 0;
ALTER TABLE click_totals
    DROP CONSTRAINT click_totals_clicks_check,
    ADD CONSTRAINT click_totals_clicks_check CHECK (clicks >= 1) NOT VALID;
