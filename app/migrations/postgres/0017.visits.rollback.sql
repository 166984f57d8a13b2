DROP TABLE visit_counts, visit_sketches, visitor_keys;
