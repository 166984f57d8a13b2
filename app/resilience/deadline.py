"""
The deadlines of requests and of their cache reads, in seconds, in one table.

A request's own deadline is what holds: the adapters' limits (for a connection, a statement, a
confirm) are longer, and end what a request that was given up has left behind.
"""

REDIRECT_S = 0.5  # the whole of a redirect that is in no local cache
CACHE_S = 0.06  # one Redis round trip; no retry, the store is the retry
CACHE_FILL_S = 1.0  # the same for a worker, which writes hundreds of keys at once
WRITE_S = 2.0  # a create, an edit, a removal: admission to commit
ADMIN_S = 5.0  # listings, invalidations, health checks
BODY_S = 5.0  # for a client to send its request body
SYNC_CACHE_S = 0.05  # a cache write done in the request because the broker is away
DRAIN_S = 20.0  # from SIGTERM to exit
