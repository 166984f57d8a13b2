"""The data plane of the Hopgate gateway; the stub beside this file is its manual, `types` has its types."""

from hopgate_front._native import Front, Held, check_tls, intent_of, with_query

__all__ = ["Front", "Held", "check_tls", "intent_of", "with_query"]
