"""PostgreSQL: the store, its pool and its replicas."""
