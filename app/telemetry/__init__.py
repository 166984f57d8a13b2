"""What operators see: metrics and logs. Never imported by the core."""
