"""
Sketches of visitors: HyperLogLog by Apache DataSketches.

With 2^14 registers the standard error is 0.65 percent; a sketch of few visitors is a list of them. Sketches
merge without loss: Heule, Nunkesser and Hall, "HyperLogLog in Practice", 2013.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

_LOG_REGISTERS = 14


def merge(held: bytes | None, visitors: Collection[int]) -> bytes:
    """Return the sketch *held*, or an empty one, with *visitors*. It takes milliseconds."""
    from datasketches import hll_sketch, tgt_hll_type

    sketch = hll_sketch(_LOG_REGISTERS, tgt_hll_type.HLL_4) if held is None else hll_sketch.deserialize(held)
    for one in visitors:
        sketch.update(one)
    return bytes(sketch.serialize_compact())


def count(sketches: Iterable[bytes]) -> int:
    """Return about how many visitors *sketches* have together."""
    from datasketches import hll_sketch, hll_union

    union = hll_union(_LOG_REGISTERS)
    for sketch in sketches:
        union.update(hll_sketch.deserialize(sketch))
    return round(float(union.get_estimate()))
