"""What is the same for steps that look at several rows: they shape a table that is made, and leave later rows alone."""

from __future__ import annotations

import polars as pl

from noria.pipelines.steps.step import RowFunction


class WholeTable:
    """What is the same for steps that look at several rows: nothing is done to rows that come later."""

    by_row = False

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows that come later stay as they are."""
        return frame

    def row(self, schema: pl.Schema) -> RowFunction:
        """A row alone stays as it is."""
        return lambda row: True
