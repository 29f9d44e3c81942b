"""The contract of a step: a definition that is fitted once, and a fitted state that is applied everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import polars as pl

from noria.core import ConfigError, allowed
from noria.pipelines.blocks import Blocks

Row = dict[str, Any]
"""One row: Python values by column; None is missing, a float32 is the float that equals it."""
RowFunction = Callable[[Row], bool]
"""Changes a row in place; false if the row is dropped."""


class FittedStep(Protocol):
    """A transformation with its state."""

    @property
    def by_row(self) -> bool:
        """Whether what it does to a row depends on that row only."""
        ...

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Transform new rows; the output's columns, their order and types never depend on the rows."""
        ...

    def apply_to_fit(self, frame: pl.DataFrame, block: int) -> pl.DataFrame:
        """Transform the rows of a block that it was fitted to; for most steps the same as `apply`."""
        ...

    def row(self, schema: pl.Schema) -> RowFunction:
        """A function that does to one row what `apply` does to a frame of this schema, to the bit."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The state as plain, readable JSON data; `step` is the class's name."""
        ...


class Step(Protocol):
    """The definition of a transformation.

    A step may also have `touched(schema)`: the columns that it reads and changes, if it leaves all others, and the
    number and order of rows, as they are. Steps after it that touch others are then fitted while the rows are read.
    """

    def fit(self, blocks: Blocks) -> FittedStep:
        """Learn the state from rows, which may be more than memory holds."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data; `step` is the class's name."""
        ...


class ByRow:
    """What is the same for steps that look at one row at a time."""

    by_row = True

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Transform new rows."""
        raise NotImplementedError

    def apply_to_fit(self, frame: pl.DataFrame, block: int) -> pl.DataFrame:
        """Rows that it was fitted to are like any others."""
        return self.apply(frame)


def chosen(schema: pl.Schema, columns: Sequence[str] | None, suitable: Sequence[str], what: str) -> tuple[str, ...]:
    """The columns that a step works on: those named, or all that suit it.

    Raises:
        ConfigError: a named column doesn't exist or doesn't suit.
    """
    if columns is None:
        return tuple(suitable)
    if isinstance(columns, str):
        raise ConfigError(f"{what}: columns={columns!r} is one name, not a list", hint=f"write [{columns!r}]")
    for name in columns:
        if name not in schema:
            raise ConfigError(f"{what}: there is no column {name!r}", hint=allowed(list(schema), name), field=name)
        if name not in suitable:
            raise ConfigError(f"{what}: column {name!r} is {schema[name]}", hint=allowed(suitable), field=name)
    return tuple(dict.fromkeys(columns))


def listed(columns: Sequence[str] | None) -> list[str] | None:
    """The columns of a definition as plain data."""
    return None if columns is None else list(columns)


def numeric(schema: Mapping[str, pl.DataType]) -> list[str]:
    """The columns of numbers."""
    return [name for name, dtype in schema.items() if dtype.is_numeric()]


def textual(schema: Mapping[str, pl.DataType]) -> list[str]:
    """The columns of text."""
    return [name for name, dtype in schema.items() if dtype == pl.String]


def rounded(value: float, dtype: pl.DataType) -> float:
    """A float as a column of this type holds it."""
    if dtype != pl.Float32:
        return float(value)
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def limits(dtype: pl.DataType) -> tuple[int, int]:
    """The least and the greatest value of a type of integers."""
    bits = next(bits for bits in (8, 16, 32, 64, 128) if str(dtype).endswith(f"Int{bits}"))
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dtype.is_signed_integer() else (0, 2**bits - 1)
