"""The worker process: `hopgate worker`."""
