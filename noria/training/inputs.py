"""Model inputs: the columns that a model reads, by the same code in training and in serving.

A column is one of the label rows' own, or a feature of a group, named `group.feature`. The fitted steps turn the
columns into the matrix that the estimator gets; they travel with the model version.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError, Schema
from noria.pipelines import FittedStep, apply_steps, row_function
from noria.pipelines.dtypes import polars_schema

Matrix = NDArray[np.float64]

FEW = 100
"""Rows that are transformed one by one; with more, columns are faster."""
_NAN = float("nan")


@dataclass(frozen=True)
class ModelInputs:
    """What a model reads.

    Attributes:
        schema: the columns, in the order in which they were declared.
        steps: fitted transformations, applied in order.
    """

    schema: Schema
    steps: tuple[FittedStep, ...]

    def frame(self, rows: Sequence[Sequence[Any]]) -> pl.DataFrame:
        """Rows of values in the order of the schema as a frame."""
        return pl.DataFrame(rows, schema=polars_schema(self.schema), orient="row")

    def matrix_of_rows(self, rows: Sequence[Sequence[Any]]) -> Matrix:
        """The same as `matrix(frame(rows))`, to the bit; for a few rows without a dataframe, some 100 times faster."""
        if self.is_plain:
            matrix = np.array(rows, dtype=np.float64)  # None becomes NaN
            for column in self._short:
                with np.errstate(over="ignore"):  # becomes infinite, as in a frame
                    matrix[:, column] = matrix[:, column].astype(np.float32)
            return matrix
        transform = self._transform
        if transform is None or len(rows) > FEW:
            return self.matrix(self.frame(rows))
        names, floats = self.schema.names, self._floats
        made = []
        for values in rows:
            row = dict(zip(names, values, strict=True))
            for name, is_short in floats:
                value = row[name]
                if value is not None:
                    row[name] = float(np.float32(value)) if is_short else float(value)
            done = transform(row)
            if done is None:
                return self.matrix(self.frame(rows))
            made.append([_NAN if value is None else value for value in done.values()])
        return np.array(made, dtype=np.float64)

    @cached_property
    def is_plain(self) -> bool:
        """Whether rows are numbers as the model reads them."""
        return not self.steps and all(field.is_number or field.dtype == "bool" for field in self.schema)

    @cached_property
    def _short(self) -> list[int]:
        return [column for column, field in enumerate(self.schema) if field.dtype == "float32"]

    @cached_property
    def _floats(self) -> list[tuple[str, bool]]:
        return [(f.name, f.dtype == "float32") for f in self.schema if f.dtype.startswith("float")]

    @cached_property
    def _transform(self) -> Callable[[dict[str, Any]], dict[str, Any] | None] | None:
        """The steps for one row; None where only the frame will do: days and instants, text that is left over."""
        types = pl.Schema(polars_schema(self.schema))
        made = apply_steps(self.steps, pl.DataFrame(schema=types)).schema
        plain = all(field.dtype not in ("date", "timestamp") for field in self.schema)
        numbers = all(dtype.is_numeric() or dtype == pl.Boolean for dtype in made.values())
        if not (plain and numbers and len(made) and all(step.by_row for step in self.steps)):
            return None
        return row_function(self.steps, types)

    def matrix(self, frame: pl.DataFrame) -> Matrix:
        """The estimator's input, [rows, columns] float64; missing numbers are NaN.

        Raises:
            ConfigError: a column is still text after the steps.
        """
        return to_matrix(apply_steps(self.steps, frame.select(self.schema.names)))


def to_matrix(frame: pl.DataFrame) -> Matrix:
    """A frame of numbers as a matrix, row after row in memory; missing numbers are NaN.

    Raises:
        ConfigError: a column is not numeric.
    """
    check_numeric(frame)
    columns = frame.select(pl.all().cast(pl.Float64).fill_null(_NAN))
    return np.ascontiguousarray(columns.to_numpy(), dtype=np.float64)


def to_columns(frame: pl.DataFrame, dtype: type[np.floating[Any]] = np.float64) -> NDArray[np.floating[Any]]:
    """The same with column after column in memory: one copy of many rows, some ten times faster than turning them.

    Args:
        frame: numbers and Booleans.
        dtype: of the matrix; float32 for libraries that would round float64 themselves.

    Raises:
        ConfigError: a column is not numeric.
    """
    check_numeric(frame)
    made = np.empty(frame.shape, dtype, order="F")
    with np.errstate(over="ignore"):
        for place, column in enumerate(frame.iter_columns()):
            made[:, place] = column.cast(pl.Float64).fill_null(_NAN).to_numpy()
    return made


def to_arrow(frame: pl.DataFrame) -> pl.DataFrame:
    """The same as float64 columns without names: a library that reads Arrow reads those of them where they lie.

    The names are those that LightGBM gives to the columns of a matrix, so that the model is the same to the byte.

    Raises:
        ConfigError: a column is not numeric.
    """
    check_numeric(frame)
    return frame.select(
        pl.col(name).cast(pl.Float64).alias(f"Column_{place}") for place, name in enumerate(frame.columns)
    )


def check_names(names: Iterable[str]) -> None:
    """Refuse names that no request could have: the decoder takes no quotes, backslashes and control characters.

    Raises:
        ConfigError: a name has one.
    """
    for name in names:
        if re.search(r'["\\\x00-\x1f]', name):
            raise ConfigError(
                f"an input can't be named {name!r}: the requests that are to have it can't be read",
                hint="give the column a name without quotes, backslashes, tabs and line breaks",
                field=name,
            )


def check_numeric(frame: pl.DataFrame) -> None:
    """Refuse what no model reads.

    Raises:
        ConfigError: a column is not numeric.
    """
    for name, kind in frame.schema.items():
        if not (kind.is_numeric() or kind == pl.Boolean):
            raise ConfigError(
                f"feature {name!r} is {kind}, and a model reads numbers",
                hint="add nr.Encode() to the steps, or leave the column out",
                field=name,
            )
