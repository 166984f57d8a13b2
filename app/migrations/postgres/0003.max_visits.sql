-- How many redirects a link may give, and how many of these the gateways have leased or given.
-- The checks hold for what is written from now on: no row that is there needs to be read.
ALTER TABLE links
    ADD COLUMN max_visits bigint,
    ADD COLUMN visits_taken bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT links_max_visits_check CHECK (max_visits BETWEEN 1 AND 9007199254740991) NOT VALID,
    ADD CONSTRAINT links_visits_taken_check CHECK (visits_taken >= 0) NOT VALID;
