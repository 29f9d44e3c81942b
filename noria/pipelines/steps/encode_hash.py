"""Categories by hash: a bucket for every text there is, with nothing to learn."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from noria.pipelines.steps.step import ByRow, Row, RowFunction

MISSING = -2.0
"""The code of a missing category."""


@dataclass(frozen=True)
class FittedHash(ByRow):
    """Hashes categories into buckets."""

    columns: tuple[str, ...]
    buckets: int

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(self._hashed(frame[name]) for name in self.columns)

    def _hashed(self, column: pl.Series) -> pl.Series:
        values = column.unique()  # each category is hashed once
        codes = pl.Series([self._bucket(value) for value in values.to_list()], dtype=pl.Float32)
        found = pl.DataFrame({"value": values, "code": codes})
        return (
            column.to_frame("value")
            .join(found, on="value", how="left", nulls_equal=True, maintain_order="left")["code"]
            .alias(column.name)
        )

    def _bucket(self, value: str | None) -> float:
        if value is None:
            return MISSING
        digest = int.from_bytes(hashlib.blake2b(value.encode(), digest_size=8).digest(), "little")
        return float(np.float32(digest % self.buckets))

    def row(self, schema: pl.Schema) -> RowFunction:
        columns, bucket = self.columns, self._bucket

        def hashed(row: Row) -> bool:
            for name in columns:
                row[name] = bucket(row[name])
            return True

        return hashed

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Encode", "columns": list(self.columns), "buckets": self.buckets}
