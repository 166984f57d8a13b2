"""
Limits of web frameworks, HTTP clients and functions; each module here needs the framework that it names.

What all web frameworks share is exported here and needs none of them: `RateLimits` holds the rates and the
rules, a `Call` is what keys, costs and answers may ask about a request, an `Answer` is what a refused client
gets.
"""

from hopgate_limiter.contrib._answers import Answer, problem
from hopgate_limiter.contrib._call import Call
from hopgate_limiter.contrib._keys import KeyOf, by_address, by_header, by_user
from hopgate_limiter.contrib._limits import Charges, Limit, RateLimits
from hopgate_limiter.contrib._proxies import TrustedProxies, client_address

__all__ = [
    "Answer",
    "Call",
    "Charges",
    "KeyOf",
    "Limit",
    "RateLimits",
    "TrustedProxies",
    "by_address",
    "by_header",
    "by_user",
    "client_address",
    "problem",
]
