"""Drop rows with missing values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from noria.pipelines.blocks import Blocks
from noria.pipelines.steps.step import ByRow, Row, RowFunction, chosen, listed


@dataclass(frozen=True)
class DropMissing:
    """Drops each row in which one of the columns (all by default) is missing."""

    columns: Sequence[str] | None = None

    def fit(self, blocks: Blocks) -> FittedDropMissing:
        schema = blocks.schema
        return FittedDropMissing(chosen(schema, self.columns, list(schema), "DropMissing"))

    def to_dict(self) -> dict[str, Any]:
        return {"step": "DropMissing", "columns": listed(self.columns)}


@dataclass(frozen=True)
class FittedDropMissing(ByRow):
    """Drops by these columns."""

    columns: tuple[str, ...]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        if not self.columns or not any(frame[name].null_count() for name in self.columns):
            return frame
        return frame.drop_nulls(list(self.columns))

    def row(self, schema: pl.Schema) -> RowFunction:
        columns = self.columns

        def keep(row: Row) -> bool:
            return all(row[name] is not None for name in columns)

        return keep

    def to_dict(self) -> dict[str, Any]:
        return {"step": "DropMissing", "columns": list(self.columns)}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedDropMissing:
        """The reverse of `to_dict`."""
        return FittedDropMissing(tuple(state["columns"]))
