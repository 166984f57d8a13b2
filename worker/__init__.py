"""
What a worker does, beside the gateways or inside an embedded one. `worker.main.run_worker` runs it all.

    cache_events.py   consumes changed and missed links: writes the shared cache
    clicks.py         consumes batches of clicks: adds them up in the store
    visits.py         consumes descriptions of visits: counts them by what they look like
    relay.py          publishes changes that are still in the outbox
    sampling.py       samples changed links: is the shared cache consistent with the store?
    outbox_depth.py   measures how much is in the outbox
    queue_depths.py   measures how much is in the queues of the broker
    webhooks.py       delivers what happens to links to webhooks
    housekeeping.py   forgets requests and batches that cannot be repeated any more, sessions, and old events

Depends on ports and services only; `app.bootstrap` gives it the adapters.
"""
