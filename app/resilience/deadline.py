"""
The deadlines of requests and of their steps, in seconds, in one table.

A deadline bounds its whole request; the steps of a redirect are shares of `REDIRECT_S` and fit into
it. The adapters' own limits (for a connection, a statement, a confirm) are longer: they end what an
abandoned request has left running.
"""

from __future__ import annotations

REDIRECT_S = 0.5  # a whole redirect that is not in the L1 cache, visit quota included
RESOLVE_S = REDIRECT_S - 0.02  # its look-ups: cache, replica and store, one after the other
CACHE_S = 0.06  # one Redis round trip; no retry, the store is the retry
CACHE_CONNECT_S = 0.2  # for Redis to accept a connection
REPLICA_S = 0.08  # links from a replica, before the primary is asked
LOOKUP_WAIT_S = 0.1  # in the queue for the primary, for links and API keys
LOOKUP_S = RESOLVE_S - CACHE_S - REPLICA_S - LOOKUP_WAIT_S  # that look-up itself
CACHE_FILL_S = 1.0  # one Redis round trip of a worker, which writes hundreds of keys at once
STORE_WAIT_S = 0.5  # in the queue for the primary, for everything else
BATCH_WAIT_S = 4.0  # in the queue for the primary, for a batch of links
STORE_S = 4.5  # any other call to the primary; the request's own deadline is shorter
WRITE_S = 1.95  # a create, an edit, a removal: clients get a response within 2 s
PUBLISH_S = 1.8  # events to the broker, until it has confirmed them
ADMIN_S = 5.0  # listings, invalidations, health checks
BATCH_S = 10.0  # a batch of links, once its body is there: checks, queue, and the transaction
BODY_S = 5.0  # for a client to send its request body
BATCH_BODY_S = 30.0  # for a client to send a batch, or each line of a stream
COMMAND_WAIT_S = 8.0  # of a command for operators, for a connection: they may be far from the servers
COMMAND_CACHE_S = 2.0  # of such a command, for Redis to accept a connection, and for each reply
COMMAND_S = COMMAND_WAIT_S + STORE_S  # any call of such a command, the connection included
SYNC_CACHE_S = 0.05  # a cache write inside a request, while the broker is away
FRONT_ANSWER_S = BODY_S + ADMIN_S + 2.0  # for the application to answer what the front has passed on
DRAIN_S = 20.0  # from SIGTERM to exit
FRONT_DRAIN_S = 12.0  # of it, for the requests that the front has under way
