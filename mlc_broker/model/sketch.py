"""Percentiles that merge: counts of whole values, in bins as fine as the value is large.

Values below 256 are counted exactly; above, each power of two has 128 bins, so a value is told
within 0.4 %. Bins are integers made by shifting bits: the same on every machine, added in any order,
taken out again by subtracting. (A quantile sketch that samples can do none of the three.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil

EXACT = 256  # values below it have a bin of their own
_BITS = 7  # so many bits of a larger value are kept, after the first
VALUE_MAX = 2**48


def bin_of(value: float) -> int:
    """Return the bin of a value; what is below 0 counts as 0, beyond 2^48 as 2^48."""
    whole = min(max(round(value), 0), VALUE_MAX)
    if whole < EXACT:
        return whole
    shift = whole.bit_length() - _BITS - 1
    return (shift << _BITS) + (whole >> shift)


def value_of(number: int) -> float:
    """Return the middle of a bin."""
    if number < EXACT:
        return float(number)
    shift = (number >> _BITS) - 1
    low = (number - (shift << _BITS)) << shift
    return low + ((1 << shift) - 1) / 2


def quantiles(counts: Mapping[int, float], wanted: Sequence[float]) -> list[float | None]:
    """Return the values at these ranks (0 to 1), the nearest rank; None where nothing was counted."""
    total = sum(counts.values())
    if total <= 0:
        return [None] * len(wanted)
    found: list[float | None] = [None] * len(wanted)
    ranks = sorted((ceil(q * total - 1e-9), i) for i, q in enumerate(wanted))
    seen, at = 0.0, 0
    for number in sorted(counts):
        seen += counts[number]
        while at < len(ranks) and seen >= ranks[at][0]:
            found[ranks[at][1]] = value_of(number)
            at += 1
    return found


def merged(parts: Iterable[Mapping[int, float]]) -> dict[int, float]:
    """Return the sum of several histograms."""
    total: dict[int, float] = {}
    for part in parts:
        for number, count in part.items():
            total[number] = total.get(number, 0) + count
    return total
