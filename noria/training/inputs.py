"""Model inputs: the columns that a model reads, by the same code in training and in serving.

A column is one of the label rows' own, or a feature of a group, named `group.feature`. The fitted steps turn the
columns into the matrix that the estimator gets; they travel with the model version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError, Schema
from noria.pipelines import FittedStep, apply_steps
from noria.pipelines.dtypes import polars_schema

Matrix = NDArray[np.float64]


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

    def matrix(self, frame: pl.DataFrame) -> Matrix:
        """The estimator's input, [rows, columns] float64; missing numbers are NaN.

        Raises:
            ConfigError: a column is still text after the steps.
        """
        return to_matrix(apply_steps(self.steps, frame.select(self.schema.names)))


def to_matrix(frame: pl.DataFrame) -> Matrix:
    """A frame of numbers as a matrix, row after row in memory.

    Raises:
        ConfigError: a column is not numeric.
    """
    for name, dtype in frame.schema.items():
        if not (dtype.is_numeric() or dtype == pl.Boolean):
            raise ConfigError(
                f"feature {name!r} is {dtype}, and a model reads numbers",
                hint="add nr.Encode() to the steps, or leave the column out",
                field=name,
            )
    columns = frame.select(pl.all().cast(pl.Float64).fill_null(float("nan")))
    return np.ascontiguousarray(columns.to_numpy(), dtype=np.float64)
