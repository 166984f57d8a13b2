"""Pure state machines that contain failures: time and randomness are arguments."""
