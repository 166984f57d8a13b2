-- Destroys the statistics of visits; the counts of clicks stay.
DROP TABLE visit_counts;
DROP TABLE visit_sketches;
DROP TABLE visitor_keys;
