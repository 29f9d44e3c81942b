"""Drop rows with missing values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from noria.pipelines.steps.step import chosen


@dataclass(frozen=True)
class DropMissing:
    """Drops each row in which one of the columns (all by default) is missing; the only step that drops rows."""

    columns: Sequence[str] | None = None

    def fit(self, frame: pl.DataFrame) -> FittedDropMissing:
        return FittedDropMissing(chosen(frame, self.columns, frame.columns, "DropMissing"))

    def to_dict(self) -> dict[str, Any]:
        return {"step": "DropMissing", "columns": None if self.columns is None else list(self.columns)}


@dataclass(frozen=True)
class FittedDropMissing:
    """Drops by these columns."""

    columns: tuple[str, ...]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.drop_nulls(list(self.columns)) if self.columns else frame

    def to_dict(self) -> dict[str, Any]:
        return {"step": "DropMissing", "columns": list(self.columns)}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedDropMissing:
        """The reverse of `to_dict`."""
        return FittedDropMissing(tuple(state["columns"]))
