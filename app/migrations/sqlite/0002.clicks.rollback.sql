-- Destroys every count of clicks.
DROP TABLE click_batches;
DROP TABLE click_hours;
DROP TABLE click_totals;
