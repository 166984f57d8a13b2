"""What operators see: logs. Listens, is never imported by the core."""
