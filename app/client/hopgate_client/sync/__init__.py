"""The synchronous client: generated from `hopgate_client.aio` by generate.py."""
