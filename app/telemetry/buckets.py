"""
The bounds of histograms, in seconds.

Redirects are answered in tens of microseconds, or after a look-up in milliseconds: percentiles of both
need narrow buckets, so from 50 µs to 1 s neighbours are at most a quarter apart. That is 65 series for
each method and class of status, too many for every route. All other routes wait for a store, and get
19.

Every coarse bound is a fine one, too. So a sum over all routes is exact at the coarse bounds, and
`histogram_quantile` of it is right to the width of a coarse bucket.
"""

from __future__ import annotations

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

# A call with every dependency in reach takes milliseconds; with one away, an event is minutes old.
AGES_S = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
    3600.0,
)

_STEPS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0)
# Rounded, so that they are written with few digits.
_FINE = [round(step * 10.0**power, 7 - power) for power in range(-5, 0) for step in _STEPS]

COARSE_S = (
    *(0.00001, 0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
FINE_S = (0.00001, 0.000025, *(bound for bound in _FINE if bound >= 0.00005), 1.0, 2.5, 5.0, 10.0)
