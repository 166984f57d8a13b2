-- How many redirects a link may give, and how many of these the gateways have leased or given.
ALTER TABLE links ADD COLUMN max_visits INTEGER CHECK (max_visits BETWEEN 1 AND 9007199254740991);
ALTER TABLE links ADD COLUMN visits_taken INTEGER NOT NULL DEFAULT 0 CHECK (visits_taken >= 0);
