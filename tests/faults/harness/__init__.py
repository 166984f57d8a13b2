"""The machinery of a drill: servers, fault proxies, a load, its journal, and the ledger that judges it."""
