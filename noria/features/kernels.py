"""Kernels over ranges of rows that are sorted by entity and time; compiled once, and kept."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_DIRECT = 1024
"""Rows up to which a deviation is computed from the values themselves, which is exact, and not from sums."""


def extreme(values: NDArray[Any], first: NDArray[np.int64], after: NDArray[np.int64], kind: str) -> NDArray[Any]:
    """Minimum or maximum of each range by a sparse table; 0 for an empty range."""
    pick = np.minimum if kind == "min" else np.maximum
    length = after - first
    levels = np.where(length > 0, np.frexp(np.maximum(length, 1))[1] - 1, 0)
    result = np.zeros(len(first), dtype=values.dtype)
    table = values
    for level in range(int(levels.max(initial=0)) + 1):
        if level:
            half = 1 << (level - 1)
            table = pick(table[:-half], table[half:])
        mine = np.flatnonzero((levels == level) & (length > 0))
        result[mine] = pick(table[first[mine]], table[after[mine] - (1 << level)])
    return result


@numba.njit(cache=True, nogil=True)
def prefixes(values: Any, restarts: Any, totals: Any, errors: Any) -> Any:
    """Prefix sums, each with what rounding took from it (Knuth's TwoSum), so that a window's small values aren't lost
    behind big ones before it; they start anew at each entity, from its total and error, so that none blurs another."""
    prefix = np.zeros(len(values) + len(restarts), dtype=values.dtype)
    lost = np.zeros(len(prefix), dtype=values.dtype)
    for entity in range(len(restarts) - 1):
        total, error = totals[entity], errors[entity]
        prefix[restarts[entity] + entity], lost[restarts[entity] + entity] = total, error
        for i in range(restarts[entity], restarts[entity + 1]):
            new = total + values[i]
            added = new - total
            error += (total - (new - added)) + (values[i] - added)
            total = new
            prefix[i + entity + 1] = total
            lost[i + entity + 1] = error
    return prefix, lost


@numba.njit(cache=True, nogil=True)
def sums(prefix: Any, lost: Any, numbers: Any, first: Any, after: Any) -> Any:
    """The sums of ranges."""
    result = np.zeros(len(first), dtype=prefix.dtype)
    for i in range(len(first)):
        if numbers[i] >= 0:
            a, b = first[i] + numbers[i], after[i] + numbers[i]
            result[i] = (prefix[b] - prefix[a]) + (lost[b] - lost[a])
    return result


@numba.njit(cache=True, nogil=True)
def spread(values: Any, restarts: Any, numbers: Any, first: Any, after: Any) -> Any:
    """The population's standard deviation of each range; sums are of distances from the entity's mean."""
    squares = np.zeros(len(values) + len(restarts), dtype=np.float64)
    plain = np.zeros(len(values) + len(restarts), dtype=np.float64)
    for entity in range(len(restarts) - 1):
        low, high = restarts[entity], restarts[entity + 1]
        if high - low <= _DIRECT:
            continue
        centre = np.mean(values[low:high])
        for i in range(low, high):
            distance, at = values[i] - centre, i + entity
            plain[at + 1] = plain[at] + distance
            squares[at + 1] = squares[at] + distance * distance
    result = np.zeros(len(first), dtype=np.float64)
    for i in range(len(first)):
        low, high = first[i], after[i]
        if numbers[i] < 0 or high - low < 2:
            continue
        count = high - low
        if count <= _DIRECT:
            mean = 0.0
            for at in range(low, high):
                mean += (values[at] - mean) / (at - low + 1)
            total = 0.0
            for at in range(low, high):
                total += (values[at] - mean) ** 2
        else:
            a, b = low + numbers[i], high + numbers[i]
            shift = plain[b] - plain[a]
            total = squares[b] - squares[a] - shift * shift / count
        result[i] = np.sqrt(max(total, 0.0) / count)
    return result


@numba.njit(cache=True, nogil=True)
def decayed(values: Any, times: Any, restarts: Any, half_life: Any, since: Any, totals: Any) -> Any:
    """At each row the decayed sum of the entity's values up to it, and the time as of which that is: the row's own, or
    of a later value. An entity begins with a total as of a time; where there is none, that is the least possible."""
    made = np.zeros(len(values), dtype=np.float64)
    when = np.zeros(len(values), dtype=np.int64)
    for entity in range(len(restarts) - 1):
        total, newest = totals[entity], since[entity]
        there = newest != np.iinfo(np.int64).min
        for i in range(restarts[entity], restarts[entity + 1]):
            if there and times[i] < newest:
                total += values[i] * 2.0 ** (-(newest - times[i]) / half_life)
            else:
                if there:
                    total *= 2.0 ** (-(times[i] - newest) / half_life)
                total += values[i]
                newest, there = times[i], True
            made[i], when[i] = total, newest
    return made, when


@numba.njit(cache=True, nogil=True)
def decay(made: Any, times: Any, numbers: Any, after: Any, at: Any, half_life: Any) -> Any:
    """The decayed sums as of instants; anything where there is no value."""
    result = np.zeros(len(after), dtype=np.float64)
    for i in range(len(after)):
        if numbers[i] >= 0 and after[i] > 0:
            last = after[i] - 1
            result[i] = made[last] * 2.0 ** (-(at[i] - times[last]) / half_life)
    return result


@numba.njit(cache=True, nogil=True)
def distinct(codes: Any, values: Any, order: Any, numbers: Any, first: Any, after: Any) -> Any:
    """How many different codes each range has; the ranges are taken in an order in which an entity's never go back."""
    counts = np.zeros(values, dtype=np.int64)
    result = np.zeros(len(first), dtype=np.int64)
    low = high = different = 0
    entity = -1
    for question in order:
        if numbers[question] < 0:
            continue
        start, end = first[question], after[question]
        if numbers[question] != entity or start > high:
            for i in range(low, high):
                counts[codes[i]] = 0
            entity, low, high, different = numbers[question], start, start, 0
        while high < end:
            counts[codes[high]] += 1
            different += counts[codes[high]] == 1
            high += 1
        while low < start:
            counts[codes[low]] -= 1
            different -= counts[codes[low]] == 0
            low += 1
        result[question] = different
    return result


@numba.njit(cache=True, nogil=True)
def top(codes: Any, values: Any, order: Any, numbers: Any, first: Any, after: Any, k: Any) -> Any:
    """The k most frequent codes of each range, of equally frequent ones that which came last; offsets and codes."""
    counts = np.zeros(values, dtype=np.int64)
    newest = np.zeros(values, dtype=np.int64)
    place = np.zeros(values, dtype=np.int64)  # of a code among those that are there
    there = np.zeros(values, dtype=np.int64)
    many = low = high = 0
    entity = -1
    best = np.zeros((len(first), k), dtype=np.int64)
    lengths = np.zeros(len(first), dtype=np.int64)
    for question in order:
        if numbers[question] < 0:
            continue
        start, end = first[question], after[question]
        if numbers[question] != entity or start > high:
            for i in range(many):
                counts[there[i]] = 0
            entity, low, high, many = numbers[question], start, start, 0
        while high < end:
            code = codes[high]
            if counts[code] == 0:
                place[code] = many
                there[many] = code
                many += 1
            counts[code] += 1
            newest[code] = high
            high += 1
        while low < start:
            code = codes[low]
            counts[code] -= 1
            if counts[code] == 0:
                many -= 1
                there[place[code]] = there[many]
                place[there[many]] = place[code]
            low += 1
        found = 0
        for i in range(many):  # insertion among the best so far
            code = there[i]
            at = found
            while at > 0:
                other = best[question, at - 1]
                if counts[other] > counts[code] or (counts[other] == counts[code] and newest[other] > newest[code]):
                    break
                if at < k:
                    best[question, at] = other
                at -= 1
            if at < k:
                best[question, at] = code
                found = min(found + 1, k)
        lengths[question] = found
    offsets = np.zeros(len(first) + 1, dtype=np.int64)
    for i in range(len(first)):
        offsets[i + 1] = offsets[i] + lengths[i]
    flat = np.empty(offsets[-1], dtype=np.int64)
    for i in range(len(first)):
        for at in range(lengths[i]):
            flat[offsets[i] + at] = best[i, at]
    return offsets, flat
