-- What visits look like: by the hour (UTC), for each link and for all of them together ('*').
CREATE TABLE visit_counts (
    slug      TEXT NOT NULL,
    hour      INTEGER NOT NULL,
    dimension TEXT NOT NULL,
    value     TEXT NOT NULL,
    visits    INTEGER NOT NULL CHECK (visits >= 1),
    PRIMARY KEY (slug, hour, dimension, value)
) STRICT, WITHOUT ROWID;
CREATE INDEX visit_counts_hour ON visit_counts (hour);

-- How many people: a HyperLogLog sketch for each day (UTC), which is a number of days since 1970.
CREATE TABLE visit_sketches (
    slug   TEXT NOT NULL,
    day    INTEGER NOT NULL,
    sketch BLOB NOT NULL,
    PRIMARY KEY (slug, day)
) STRICT, WITHOUT ROWID;

-- What the visitors of a day are hashed with. A key is deleted two days later, and with it the way back from a
-- hash to an address.
CREATE TABLE visitor_keys (
    day INTEGER PRIMARY KEY,
    key BLOB NOT NULL
) STRICT;
