"""The contract of a step: a definition that is fitted once, and a fitted state that is applied everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import polars as pl

from noria.core import ConfigError, allowed


class FittedStep(Protocol):
    """A transformation with its state. What it does to a row depends on that row only."""

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Transform rows; the output's columns, their order and types never depend on the rows."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The state as plain, readable JSON data; `step` is the class's name."""
        ...


class Step(Protocol):
    """The definition of a transformation."""

    def fit(self, frame: pl.DataFrame) -> FittedStep:
        """Learn the state from rows."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data; `step` is the class's name."""
        ...


def chosen(frame: pl.DataFrame, columns: Sequence[str] | None, suitable: Sequence[str], what: str) -> tuple[str, ...]:
    """The columns that a step works on: those named, or all that suit it.

    Raises:
        ConfigError: a named column doesn't exist or doesn't suit.
    """
    if columns is None:
        return tuple(suitable)
    for name in columns:
        if name not in frame.columns:
            raise ConfigError(f"{what}: there is no column {name!r}", hint=allowed(frame.columns, name), field=name)
        if name not in suitable:
            raise ConfigError(f"{what}: column {name!r} is {frame.schema[name]}", hint=allowed(suitable), field=name)
    return tuple(columns)


def numeric(frame: pl.DataFrame) -> list[str]:
    """The columns of numbers."""
    return [name for name, dtype in frame.schema.items() if dtype.is_numeric()]


def textual(frame: pl.DataFrame) -> list[str]:
    """The columns of text."""
    return [name for name, dtype in frame.schema.items() if dtype == pl.String]
