"""Faults on real servers under load, and the ledger that says whether the promises held."""
