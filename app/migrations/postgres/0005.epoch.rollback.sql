DROP TABLE store_epoch;
