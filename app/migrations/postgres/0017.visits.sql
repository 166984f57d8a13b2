-- What visits look like: by the hour (UTC), for each link and for all of them together ('*'). Rows are updated
-- all the time, and no index but the key is, so there is room for new versions beside the old ones.
CREATE TABLE visit_counts (
    slug      text COLLATE "C",
    hour      timestamptz,
    dimension text COLLATE "C",
    value     text COLLATE "C",
    visits    bigint NOT NULL CHECK (visits >= 1),
    PRIMARY KEY (slug, hour, dimension, value)
) WITH (fillfactor = 80);
-- Hours come in their order, so the blocks of old ones are found without an index of every row.
CREATE INDEX visit_counts_hour ON visit_counts USING brin (hour);

-- How many people: a HyperLogLog sketch for each day (UTC).
CREATE TABLE visit_sketches (
    slug   text COLLATE "C",
    day    date,
    sketch bytea NOT NULL,
    PRIMARY KEY (slug, day)
);

-- What the visitors of a day are hashed with. A key is deleted two days later, and with it the way back from a
-- hash to an address.
CREATE TABLE visitor_keys (
    day date PRIMARY KEY,
    key bytea NOT NULL
);
