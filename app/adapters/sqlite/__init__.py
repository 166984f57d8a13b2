"""SQLite: the store of the embedded mode."""
