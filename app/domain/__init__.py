"""What a link is and the rules it obeys. Pure: no I/O, no clock, no framework."""
