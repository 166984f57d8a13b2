"""Pure state machines that keep trouble small; time is an argument."""
