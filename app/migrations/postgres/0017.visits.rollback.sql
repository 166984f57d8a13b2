-- Destroys the statistics of visits; the counts of clicks stay.
DROP TABLE visit_counts, visit_sketches, visitor_keys;
