-- Ends every session of the console.
DROP TABLE console_sessions;
