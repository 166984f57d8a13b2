"""The asynchronous client. `hopgate_client.sync` is generated from it by generate.py."""
