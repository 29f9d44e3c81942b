"""Arithmetic, comparisons and logic of one row's values, with the bits that Polars gives."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import polars as pl

from noria.pipelines.steps.expression_values import (
    BOOL,
    FLOAT,
    SINGLE,
    TEXT,
    Typed,
    UnsureError,
    Value,
    checked,
    converted,
    finite,
    finite_single,
)
from noria.pipelines.steps.step import Row

_EXACT: dict[str, Callable[[Any, Any], Any]] = {
    "Plus": operator.add,
    "Minus": operator.sub,
    "Multiply": operator.mul,
}
_WHOLE: dict[str, Callable[[Any, Any], Any]] = {"FloorDivide": operator.floordiv, "Modulus": operator.mod}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtEq": operator.le,
    "Gt": operator.gt,
    "GtEq": operator.ge,
}


def binary(op: str, left: Typed, right: Typed, dtype: pl.DataType, common: pl.DataType | None) -> Typed:
    """An operation of two values; `dtype` is its result's type, `common` the one in which numbers are compared."""
    if left.is_written and right.is_written:
        raise UnsureError
    if op in ("And", "Or"):
        return _logic(op, left, right)
    if op in _COMPARISONS:
        return compared(_COMPARISONS[op], left, right, common)
    if op == "TrueDivide" and dtype.is_float():
        return _divided(left, right, dtype)
    if op in _WHOLE and dtype.is_integer():
        return _whole_divided(_WHOLE[op], left, right, dtype)
    if op not in _EXACT or not dtype.is_numeric():
        raise UnsureError
    if dtype.is_float() and (left.written == 0 or right.written == 0):
        raise UnsureError  # Polars leaves out what a written 0 would do to -0.0
    return Typed(_operated(_EXACT[op], left, right, dtype), dtype)


def _operated(operate: Callable[[Any, Any], Any], left: Typed, right: Typed, dtype: pl.DataType) -> Value:
    a, b, check = converted(left, dtype), converted(right, dtype), checked(dtype)

    def operated(row: Row) -> Any:
        x, y = a(row), b(row)
        return None if x is None or y is None else check(operate(x, y))

    return operated


def _divided(left: Typed, right: Typed, dtype: pl.DataType) -> Typed:
    a, b = converted(left, dtype), converted(right, dtype)
    check = finite_single if dtype == SINGLE else finite

    def divided(row: Row) -> Any:
        x, y = a(row), b(row)
        if x is None or y is None:
            return None
        if y == 0:
            raise UnsureError
        return check(x / y)

    return Typed(divided, dtype)


def _whole_divided(operate: Callable[[Any, Any], Any], left: Typed, right: Typed, dtype: pl.DataType) -> Typed:
    a, b, check = converted(left, dtype), converted(right, dtype), checked(dtype)

    def divided(row: Row) -> Any:
        x, y = a(row), b(row)
        return None if x is None or not y else check(operate(x, y))  # by 0 it is missing

    return Typed(divided, dtype)


def compared(compare: Callable[[Any, Any], bool], left: Typed, right: Typed, common: pl.DataType | None) -> Typed:
    """A comparison; missing if one side is."""
    if common is not None and common.is_numeric():
        a, b = converted(left, common), converted(right, common)
    elif left.dtype == right.dtype and left.dtype not in (FLOAT, SINGLE):
        a, b = left.value, right.value
        if left.dtype == BOOL and compare not in (operator.eq, operator.ne):
            raise UnsureError
        if left.dtype != TEXT and (left.is_written or right.is_written):
            raise UnsureError
    else:
        raise UnsureError

    def result(row: Row) -> Any:
        x, y = a(row), b(row)
        if x is None or y is None:
            return None
        if x != x or y != y:
            raise UnsureError  # to Polars NaN is equal to itself, and greater than any number
        return compare(x, y)

    return Typed(result, BOOL)


def _logic(op: str, left: Typed, right: Typed) -> Typed:
    if left.dtype != BOOL or right.dtype != BOOL:
        raise UnsureError
    a, b, decides = left.value, right.value, op == "Or"

    def decided(row: Row) -> Any:
        x, y = a(row), b(row)
        if x is decides or y is decides:
            return decides
        return None if x is None or y is None else not decides

    return Typed(decided, BOOL)
