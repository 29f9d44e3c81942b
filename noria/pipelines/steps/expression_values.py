"""Values of one row with their types: how they are converted to each other, as Polars does it."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from noria.pipelines.steps.step import Row, limits

Value = Callable[[Row], Any]
Function = Callable[[Any], Any]

FLOAT, SINGLE, INT, BOOL, TEXT = pl.Float64(), pl.Float32(), pl.Int64(), pl.Boolean(), pl.String()
_EXACT = 2**53


class UnsureError(Exception):
    """Polars has to say."""


@dataclass(frozen=True)
class Typed:
    """A part of an expression.

    Attributes:
        value: its value in a row.
        dtype: its type; of a number that is written out it depends on what is beside it.
        written: the value of what is written out.
    """

    value: Value
    dtype: pl.DataType
    written: Any = None

    @property
    def is_written(self) -> bool:
        """Whether it is written out, and no column is needed."""
        return self.written is not None


def single(value: float) -> float:
    """A float32 as the float that equals it."""
    return ctypes.c_float(value).value


def finite(value: float) -> float:
    """The value, if Python and Polars can't have different ideas of it."""
    if not math.isfinite(value):
        raise UnsureError
    return value


def finite_single(value: float) -> float:
    """The value as a float32."""
    return finite(single(value))


def wrapping(dtype: pl.DataType) -> Function:
    """What makes an integer one of the type, as arithmetic does: 127 + 1 is -128 in an int8."""
    least, greatest = limits(dtype)
    size = greatest - least + 1

    def wrap(value: int) -> int:
        return value if least <= value <= greatest else (value - least) % size + least

    return wrap


def checked(dtype: pl.DataType) -> Function:
    """What an operation's exact result becomes in this type."""
    if dtype == FLOAT:
        return finite
    if dtype == SINGLE:
        return finite_single
    if dtype.is_integer():
        return wrapping(dtype)
    raise UnsureError


def converted(typed: Typed, dtype: pl.DataType) -> Value:
    """The value in another type, where no value is lost."""
    if typed.is_written:
        constant = _written(typed.written, dtype)
        return lambda row: constant
    if typed.dtype == dtype:
        return typed.value
    change = widening(typed.dtype, dtype)
    return typed.value if change is None else applied(change, typed.value)


def applied(change: Function, value: Value) -> Value:
    """A function of one value; of nothing it is nothing."""

    def change_value(row: Row) -> Any:
        found = value(row)
        return None if found is None else change(found)

    return change_value


def _written(value: Any, dtype: pl.DataType) -> Any:
    if isinstance(value, (bool, str)):
        if dtype == (BOOL if isinstance(value, bool) else TEXT):
            return value
    elif dtype.is_integer() and isinstance(value, int):
        least, greatest = limits(dtype)
        if least <= value <= greatest:
            return value
    elif dtype.is_float() and (isinstance(value, float) or abs(value) < 2**24):
        return finite_single(value) if dtype == SINGLE else float(value)
    raise UnsureError


def widening(source: pl.DataType, target: pl.DataType) -> Function | None:
    """How a value of one type becomes one of a type that has room for it; None: it stays as it is."""
    if source == target or (source == SINGLE and target == FLOAT):
        return None
    if source.is_integer():
        least, greatest = limits(source)
        if target.is_integer():
            low, high = limits(target)
            if low <= least and greatest <= high:
                return None
        if target == FLOAT or (target == SINGLE and greatest < 2**24):
            return float
    if source == BOOL and target.is_integer():
        return int
    if source == BOOL and target.is_float():
        return float
    raise UnsureError


def cast(source: pl.DataType, target: pl.DataType, strict: bool) -> Function | None:
    """How a value is cast to a type that may have no room for it; None: it stays as it is."""
    try:
        return widening(source, target)
    except UnsureError:
        pass
    if source == FLOAT and target == SINGLE:
        return finite_single
    if target == BOOL and source.is_numeric():
        return bool
    if not target.is_integer() or not source.is_numeric():
        raise UnsureError
    least, greatest = limits(target)

    def narrow(value: float) -> Any:
        whole = math.trunc(finite(value))
        if least <= whole <= greatest:
            return whole
        if strict:
            raise UnsureError  # Polars has the words for it
        return None

    return narrow
