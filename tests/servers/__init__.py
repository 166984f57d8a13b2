"""Private servers for tests: started on free ports, in throw-away folders, stopped at the end."""
