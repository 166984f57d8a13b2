"""
Faults whose steps need an exact order, so they do not run under a random load.

Each story takes a stage, leaves it healed, and returns its figures.
"""
