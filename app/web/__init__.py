"""HTTP: the Robyn application and the RSGI bridge that serves it."""
