"""Redis and Redis Cluster: the shared cache."""
