-- How often each link was visited: in all, and by the hour (UTC). Rows are updated all the
-- time, and no index but the keys is, so there is room for new versions beside the old ones.
CREATE TABLE click_totals (
    slug   text COLLATE "C" PRIMARY KEY,
    clicks bigint NOT NULL CHECK (clicks >= 1)
) WITH (fillfactor = 80);

CREATE TABLE click_hours (
    slug   text COLLATE "C",
    hour   timestamptz,
    clicks bigint NOT NULL CHECK (clicks >= 1),
    PRIMARY KEY (slug, hour)
) WITH (fillfactor = 80);

-- Which batches of clicks were added, so that none is added twice.
CREATE TABLE click_batches (
    id        text COLLATE "C" PRIMARY KEY,
    folded_at timestamptz NOT NULL
);
CREATE INDEX click_batches_age ON click_batches (folded_at);
