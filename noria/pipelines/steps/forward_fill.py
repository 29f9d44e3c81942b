"""Fill gaps from the rows before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import polars as pl

from noria.core import ConfigError
from noria.pipelines.blocks import Blocks
from noria.pipelines.steps.step import chosen
from noria.pipelines.steps.whole_table import WholeTable

_PLACE = "__place__"
_BLOCK = "__block__"


@dataclass(frozen=True)
class ForwardFill:
    """Fills missing values with the last one before; a gap at the start stays.

    Attributes:
        columns: which.
        by: only from rows that have the same value in this column. Memory grows with the number of its values.
        time: what is before is told by this column, of equal times by the order of rows; rows without a time stay as
            they are. Memory then holds the filled columns whole. By default the order of rows is that of time.
    """

    columns: Sequence[str]
    by: str | None = None
    time: str | None = None

    def fit(self, blocks: Blocks) -> FittedForwardFill:
        schema = blocks.schema
        names = chosen(schema, self.columns, list(schema), "ForwardFill")
        for role, name in (("by", self.by), ("time", self.time)):
            if name is not None:
                chosen(schema, [name], list(schema), "ForwardFill")
                if name in names:
                    raise ConfigError(f"ForwardFill: {name!r} can't be filled by itself", field=role)
        keys = [self.by] if self.by is not None else []
        if self.time is not None:
            return FittedForwardFill(names, self.by, fills=_by_time(blocks, names, keys, self.time))
        return FittedForwardFill(names, self.by, carries=_carries(blocks, names, keys))

    def to_dict(self) -> dict[str, Any]:
        return {"step": "ForwardFill", "columns": list(self.columns), "by": self.by, "time": self.time}


def _carries(blocks: Blocks, names: tuple[str, ...], keys: list[str]) -> list[dict[str, pl.DataFrame]]:
    """For each block what it takes over from those before: by column, keys and values."""
    known = {name: pl.DataFrame(schema=[(n, blocks.schema[n]) for n in (*keys, name)]) for name in names}
    carries = []
    for part in blocks.map(partial(_gaps, names, keys)):
        carries.append({name: _matching(known[name], part[name][0], keys) for name in names})
        for name in names:
            newer = pl.concat([known[name], part[name][1]])
            known[name] = newer.unique(keys, keep="last", maintain_order=True) if keys else newer.tail(1)
    return carries


def _gaps(
    names: tuple[str, ...], keys: list[str], frame: pl.DataFrame, block: int
) -> dict[str, tuple[pl.DataFrame, pl.DataFrame]]:
    """For each column the keys whose first value is missing, and the last value of each key."""
    found = {}
    for name in names:
        column = frame.select(*keys, name)
        present = column.filter(pl.col(name).is_not_null())
        first = column.unique(keys, keep="first", maintain_order=True) if keys else column.head(1)
        last = present.unique(keys, keep="last", maintain_order=True) if keys else present.tail(1)
        found[name] = (first.filter(pl.col(name).is_null()).select(keys), last)
    return found


def _matching(known: pl.DataFrame, wanted: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    return known.join(wanted, on=keys, how="semi", nulls_equal=True) if keys else known


def _by_time(blocks: Blocks, names: tuple[str, ...], keys: list[str], time: str) -> dict[int, pl.DataFrame]:
    """For each block the rows with gaps that are filled, and their values."""
    frames = blocks.map(partial(_columns, tuple(dict.fromkeys((*keys, time, *names))), time))
    rows = pl.concat(frames).sort(time, maintain_order=True)
    filled = [pl.col(name).forward_fill() for name in names]
    made = rows.with_columns([fill.over(keys) for fill in filled] if keys else filled)
    gaps = pl.any_horizontal(rows[name].is_null() for name in names)
    made = made.filter(pl.select(gaps).to_series()).select(_BLOCK, _PLACE, *names)
    return {int(number[0]): part.drop(_BLOCK) for number, part in made.partition_by(_BLOCK, as_dict=True).items()}


def _columns(columns: tuple[str, ...], time: str, frame: pl.DataFrame, block: int) -> pl.DataFrame:
    rows = frame.select(columns).with_row_index(_PLACE).with_columns(pl.lit(block, pl.Int64).alias(_BLOCK))
    return rows.drop_nulls(time)


@dataclass(frozen=True)
class FittedForwardFill(WholeTable):
    """Fills the blocks that it was fitted to.

    `carries` has what each block takes over from those before; or `fills` has each block's filled rows.
    """

    columns: tuple[str, ...]
    by: str | None
    carries: list[dict[str, pl.DataFrame]] = field(default_factory=list, compare=False)
    fills: dict[int, pl.DataFrame] | None = field(default=None, compare=False)

    def apply_to_fit(self, frame: pl.DataFrame, block: int) -> pl.DataFrame:
        if self.fills is not None:
            return self._filled(frame, block)
        if block >= len(self.carries):
            return frame
        filled = [pl.col(name).forward_fill() for name in self.columns]
        made = frame.with_columns(filled if self.by is None else [fill.over(self.by) for fill in filled])
        return made.with_columns(self._carried(made, name, self.carries[block][name]) for name in self.columns)

    def _carried(self, frame: pl.DataFrame, name: str, carry: pl.DataFrame) -> pl.Series:
        column = frame[name]
        if carry.is_empty() or not column.null_count():
            return column
        if self.by is None:
            return column.zip_with(column.is_not_null(), carry[name].new_from_index(0, len(column)))
        found = frame.select(self.by).join(carry, on=self.by, how="left", nulls_equal=True, maintain_order="left")
        return column.zip_with(column.is_not_null(), found[name])

    def _filled(self, frame: pl.DataFrame, block: int) -> pl.DataFrame:
        fills = (self.fills or {}).get(block)
        if fills is None or frame.is_empty():
            return frame
        return frame.with_columns(frame[name].scatter(fills[_PLACE], fills[name]) for name in self.columns)

    def to_dict(self) -> dict[str, Any]:
        return {"step": "ForwardFill", "columns": list(self.columns), "by": self.by}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedForwardFill:
        """The reverse of `to_dict`, for rows that come later."""
        return FittedForwardFill(tuple(state["columns"]), state["by"])
