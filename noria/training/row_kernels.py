"""The compiled loops that read rows from JSON: see `row_json`.

Numbers are converted by D. Lemire, "Number Parsing at a Gigabyte per Second" (2021), algorithm 1. The text ends with a
zero byte, which is no part of anything, so that nothing looks beyond it; places in it are unsigned, since numba looks
at each signed one whether it counts from the end.
"""

# mypy: allow-untyped-defs, allow-untyped-calls, disable-error-code="call-arg, var-annotated, assignment"

from __future__ import annotations

from functools import cache

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from noria.training.fast.kernels import kernel

WHOLE, SHORT = 1, 2
"""Kinds of columns: integers, and float32. (Defined here, since a cached loop doesn't notice another file's change.)"""

_LEAST, _MOST = -342, 308  # powers of ten beyond which a product with 64 bits is zero or infinite
_ONE, _NOWHERE = np.uint64(1), np.uint64(0)
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_TAIL = np.uint64(0x1FF)  # the bits of a product that decide whether 64 bits of the power were enough
_HIDDEN = np.uint64(1 << 52)
_MAX_DIGITS = 19  # as many decimal digits, from the first that isn't 0, as fit into 64 bits whichever they are


inlined = numba.njit(inline="always")  # a call would hand over an array as seven numbers


@cache
def powers_of_five() -> NDArray[np.uint64]:
    """The first 128 bits of 5 to each power from `_LEAST` on, the more significant half first."""
    table = np.empty((_MOST - _LEAST + 1, 2), np.uint64)
    for power in range(_LEAST, _MOST + 1):
        five = 5 ** abs(power)
        if power >= 0:
            bits = five << 128 >> five.bit_length()
        else:  # rounded up, so that the product is never too small
            length = (five - 1).bit_length()
            bits = (1 << (length + 127)) // five + 1
        table[power - _LEAST] = bits >> 64, bits & 0xFFFFFFFFFFFFFFFF
    return table


@intrinsic
def _high(_, a, b):
    """The upper 64 bits of a product."""

    def code(context, builder, signature, arguments):
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(one, wide) for one in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), code


@intrinsic
def _leading_zeros(_, word):
    def code(context, builder, signature, arguments):
        return builder.ctlz(arguments[0], context.get_constant(types.boolean, 0))

    return types.uint64(types.uint64), code


@intrinsic
def _float_of(_, word):
    """The float64 with these bits."""

    def code(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.uint64), code


@inlined
def _nearest(digits, power, powers):
    """`digits` times ten to the power, as a float64's bits; 0 where this way can't tell, or it isn't a normal one."""
    if power < _LEAST or power > _MOST:
        return np.uint64(0)
    zeros = _leading_zeros(digits)
    word = digits << zeros
    row = np.uint64(power - _LEAST)
    high, low = _high(word, powers[row, np.uint64(0)]), word * powers[row, np.uint64(0)]
    if high & _TAIL == _TAIL:
        more = _high(word, powers[row, np.uint64(1)])
        low += more
        if low < more:
            high += np.uint64(1)
    if low == _ALL and not (-27 <= power <= 55):
        return np.uint64(0)
    top = high >> np.uint64(63)
    shift = top + np.uint64(9)
    mantissa = high >> shift
    exponent = ((217706 * power) >> 16) + 63 + np.int64(top) - np.int64(zeros) + 1023
    if exponent <= 0:
        return np.uint64(0)
    halfway = low <= np.uint64(1) and -4 <= power <= 23 and mantissa & np.uint64(3) == np.uint64(1)
    if halfway and mantissa << shift == high:  # exactly between two: to the even one
        mantissa &= ~np.uint64(1)
    mantissa = (mantissa + (mantissa & np.uint64(1))) >> np.uint64(1)
    if mantissa >= _HIDDEN + _HIDDEN:
        mantissa = _HIDDEN
        exponent += 1
    if exponent >= 2047:
        return np.uint64(0)
    return (mantissa & (_HIDDEN - np.uint64(1))) | np.uint64(exponent) << np.uint64(52)


@kernel
def braces(text):
    """How many closing braces there are; some ten times faster than `bytes.count`."""
    count = 0
    for letter in text:
        count += letter == 125
    return count


@inlined
def _space(text, at):
    while text[at] == 32 or text[at] == 10 or text[at] == 13 or text[at] == 9:
        at += _ONE
    return at


@inlined
def _digits(text, at, digits, many):
    """Reads on in the digits of a number: their value, how many count, and where they end."""
    while True:
        digit = np.uint64(text[at]) - np.uint64(48)  # a huge number for what comes before "0"
        if digit > np.uint64(9):
            return digits, many, at
        digits = digits * np.uint64(10) + digit
        many += digits != np.uint64(0)
        at += _ONE


@kernel
def _number(text, at, powers):
    """A JSON number and where it ends; 0 for the end where the usual decoder has to look."""
    sign = np.uint64(0)
    if text[at] == 45:
        sign = np.uint64(1 << 63)
        at += _ONE
    begin, power = at, 0
    digits, many, at = _digits(text, at, np.uint64(0), 0)
    if at == begin or (at > begin + _ONE and text[begin] == 48):
        return 0.0, _NOWHERE
    if text[at] == 46:
        begin = at + _ONE
        digits, many, at = _digits(text, begin, digits, many)
        power = np.int64(begin) - np.int64(at)
        if power == 0:
            return 0.0, _NOWHERE
    if many > _MAX_DIGITS:
        return 0.0, _NOWHERE
    if text[at] == 101 or text[at] == 69:
        at += _ONE
        minus = text[at] == 45
        if minus or text[at] == 43:
            at += _ONE
        begin = at
        given, _, at = _digits(text, at, np.uint64(0), 0)
        if at == begin or at > begin + np.uint64(4):
            return 0.0, _NOWHERE
        power += -np.int64(given) if minus else np.int64(given)
    if digits == np.uint64(0):  # -0 is an integer's zero, -0.0 a float's
        return 0.0, _NOWHERE if sign else at
    bits = _nearest(digits, power, powers)
    return _float_of(bits | sign), at if bits else _NOWHERE


@inlined
def _is_whole(text, at, end):
    while at < end and (text[at] == 45 or 48 <= text[at] <= 57):
        at += _ONE
    return at == end


@kernel
def read(text, at, keys, starts, places, nullable, kinds, limits, powers, out):
    """Fill `out` with the rows that begin at `at`; how many there were, or -1."""
    last = np.uint64(len(places) - 1)
    for r in range(len(out)):
        at = _space(text, at)
        if text[at] != 123:
            return -1
        for k in range(np.uint64(len(places))):
            at = _space(text, at + _ONE)  # behind the brace, or the comma
            for i in range(starts[k], starts[k + _ONE]):
                if text[at] != keys[i]:
                    return -1
                at += _ONE
            at = _space(text, at)
            if text[at] != 58:
                return -1
            at = _space(text, at + _ONE)
            if text[at] == 110 and nullable[places[k]]:
                for letter in (110, 117, 108, 108):
                    if text[at] != letter:
                        return -1
                    at += _ONE
                out[r, places[k]] = np.nan
            else:
                begin, kind, limit = at, kinds[places[k]], limits[places[k]]
                value, at = _number(text, at, powers)
                if at == _NOWHERE or abs(value) > limit or (kind == WHOLE and not _is_whole(text, begin, at)):
                    return -1
                out[r, places[k]] = np.float64(np.float32(value)) if kind == SHORT else value
            at = _space(text, at)
            if text[at] != (44 if k < last else 125):
                return -1
        at = _space(text, at + _ONE)
        if text[at] != (44 if r + 1 < len(out) else 93):
            return -1
        at += _ONE
    at = _space(text, at)
    return len(out) if text[at] == 125 and _space(text, at + _ONE) == np.uint64(len(text) - 1) else -1
