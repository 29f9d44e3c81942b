"""Steps that look at several rows: they shape a table that is being made, and leave single rows as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError, allowed
from noria.pipelines.blocks import Blocks
from noria.pipelines.duplicates import Hashes, key_hashes
from noria.pipelines.steps.step import RowFunction, chosen

KEEP = ("newest", "oldest", "first", "last")
Dropped = dict[int, NDArray[np.uint32]]


class WholeTable:
    """What is the same for steps that look at several rows: nothing is done to rows that come later."""

    by_row = False

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows that come later stay as they are."""
        return frame

    def row(self, schema: pl.Schema) -> RowFunction:
        """A row alone stays as it is."""
        return lambda row: True


@dataclass(frozen=True)
class Deduplicate:
    """Keeps one row of those that have the same values in some columns; where one of them is missing, all are kept.

    Fitting takes about 60 bytes of memory for each row.

    Attributes:
        by: the columns.
        keep: `newest` or `oldest`, by `time`, of equal ones the later row; or `first` or `last`, in the order of rows.
        time: for `newest` and `oldest`: a column of instants, dates or numbers; a row without a value loses.
    """

    by: Sequence[str]
    keep: str = "first"
    time: str | None = None

    def __post_init__(self) -> None:
        if self.keep not in KEEP:
            raise ConfigError(f"Deduplicate: keep={self.keep!r}", hint=allowed(KEEP, self.keep))
        if (self.keep in ("newest", "oldest")) != (self.time is not None):
            raise ConfigError(
                "Deduplicate: time= goes with keep='newest' or 'oldest', and only with them", field="time"
            )
        if not self.by:
            raise ConfigError("Deduplicate needs columns: by=[…]", field="by")

    def fit(self, blocks: Blocks) -> FittedDeduplicate:
        schema = blocks.schema
        chosen(schema, self.by, list(schema), "Deduplicate")
        if self.time is not None:
            suitable = [name for name, dtype in schema.items() if dtype.is_numeric() or dtype.is_temporal()]
            chosen(schema, [self.time], suitable, "Deduplicate")
        parts = blocks.map(partial(_keys, tuple(self.by), self.time))
        return FittedDeduplicate(_losers([p[0] for p in parts], [p[1] for p in parts], self.keep))

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Deduplicate", "by": list(self.by), "keep": self.keep, "time": self.time}


def _keys(by: tuple[str, ...], time: str | None, frame: pl.DataFrame, block: int) -> tuple[Hashes, NDArray[Any]]:
    hashes = key_hashes(frame, by)
    if time is None:
        return hashes, np.zeros(len(hashes))
    times = frame[time].to_physical()
    # Numbers of the column's own type: as float64 two instants could be equal that aren't.
    empty = -(2**63) if not times.dtype.is_float() else float("-inf")
    return hashes, times.fill_null(empty).to_numpy()[hashes["row"]]


def _losers(hashes: list[Hashes], times: list[NDArray[Any]], keep: str) -> Dropped:
    whole, when = np.concatenate(hashes), np.concatenate(times)
    blocks = np.repeat(np.arange(len(hashes), dtype=np.uint32), [len(part) for part in hashes])
    if keep == "oldest":
        missing = when == (-(2**63) if when.dtype.kind == "i" else -np.inf)
        when = np.where(missing, when, -when - (1 if when.dtype.kind == "i" else 0))
    # The row that is kept comes last in its group.
    order = np.lexsort((whole["row"], blocks, when, whole["low"], whole["high"]))
    if keep == "first":
        order = np.lexsort((-whole["row"].astype(np.int64), -blocks.astype(np.int64), whole["low"], whole["high"]))
    whole, blocks = whole[order], blocks[order]
    same = (whole["high"][1:] == whole["high"][:-1]) & (whole["low"][1:] == whole["low"][:-1])
    lost = np.flatnonzero(same)
    rows, where = whole["row"][lost], blocks[lost]
    return {int(block): np.sort(rows[where == block]) for block in np.unique(where)}


@dataclass(frozen=True)
class FittedDeduplicate(WholeTable):
    """Drops these rows of the blocks that it was fitted to."""

    dropped: Dropped = field(default_factory=dict, compare=False)

    def apply_to_fit(self, frame: pl.DataFrame, block: int) -> pl.DataFrame:
        rows = self.dropped.get(block)
        if rows is None:
            return frame
        mask = np.ones(len(frame), bool)
        mask[rows] = False
        return frame.filter(pl.Series(mask))

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Deduplicate", "dropped": int(sum(map(len, self.dropped.values())))}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedDeduplicate:
        """The reverse of `to_dict`, for rows that come later."""
        return FittedDeduplicate()


@dataclass(frozen=True)
class ForwardFill:
    """Fills missing values with the last one before, in the order of rows; a gap at the start stays.

    Attributes:
        columns: which.
        by: only from rows that have the same value in this column. Memory grows with the number of its values.
    """

    columns: Sequence[str]
    by: str | None = None

    def fit(self, blocks: Blocks) -> FittedForwardFill:
        schema = blocks.schema
        names = chosen(schema, self.columns, list(schema), "ForwardFill")
        if self.by is not None:
            chosen(schema, [self.by], list(schema), "ForwardFill")
            if self.by in names:
                raise ConfigError(f"ForwardFill: {self.by!r} can't be filled by itself", field="by")
        carried: dict[str, dict[Any, Any]] = {name: {} for name in names}
        carries: list[dict[str, dict[Any, Any]]] = []
        for part in blocks.map(partial(_gaps, names, self.by)):
            carries.append({name: {k: carried[name].get(k) for k in part[name][0]} for name in names})
            for name in names:
                carried[name].update(part[name][1])
        return FittedForwardFill(names, self.by, tuple(carries))

    def to_dict(self) -> dict[str, Any]:
        return {"step": "ForwardFill", "columns": list(self.columns), "by": self.by}


def _gaps(
    names: tuple[str, ...], by: str | None, frame: pl.DataFrame, block: int
) -> dict[str, tuple[list[Any], dict[Any, Any]]]:
    """For each column the keys whose first value is missing, and the last value of each key."""
    found: dict[str, tuple[list[Any], dict[Any, Any]]] = {}
    for name in names:
        if by is None:
            column = frame[name]
            last = column.drop_nulls()
            found[name] = ([None] if len(column) and column[0] is None else [], {None: last[-1]} if len(last) else {})
            continue
        first = frame.group_by(by, maintain_order=True).agg(pl.col(name).first().alias("")).filter(pl.col("").is_null())
        last = (
            frame.filter(pl.col(name).is_not_null())
            .group_by(by, maintain_order=True)
            .agg(pl.col(name).last().alias(""))
        )
        found[name] = (first[by].to_list(), dict(zip(last[by].to_list(), last[""].to_list(), strict=True)))
    return found


@dataclass(frozen=True)
class FittedForwardFill(WholeTable):
    """Fills the blocks that it was fitted to; `carries` has what each block takes over from those before."""

    columns: tuple[str, ...]
    by: str | None
    carries: tuple[dict[str, dict[Any, Any]], ...] = field(default=(), compare=False)

    def apply_to_fit(self, frame: pl.DataFrame, block: int) -> pl.DataFrame:
        carry = self.carries[block] if block < len(self.carries) else {}
        filled = [pl.col(name).forward_fill() for name in self.columns]
        made = frame.with_columns(filled if self.by is None else [fill.over(self.by) for fill in filled])
        for name in self.columns:
            values = {key: value for key, value in carry.get(name, {}).items() if value is not None}
            if values:
                made = made.with_columns(_carried(made, name, self.by, values))
        return made

    def to_dict(self) -> dict[str, Any]:
        return {"step": "ForwardFill", "columns": list(self.columns), "by": self.by}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedForwardFill:
        """The reverse of `to_dict`, for rows that come later."""
        return FittedForwardFill(tuple(state["columns"]), state["by"])


def _carried(frame: pl.DataFrame, name: str, by: str | None, values: dict[Any, Any]) -> pl.Series:
    column = frame[name]
    if by is None:
        return column.fill_null(pl.Series([values[None]], dtype=column.dtype)[0])
    keys = pl.Series("key", list(values), frame.schema[by])
    table = pl.DataFrame([keys, pl.Series("value", list(values.values()), column.dtype)])
    mine = frame.select(pl.col(by).alias("key"))
    found = mine.join(table, on="key", how="left", nulls_equal=True, maintain_order="left")["value"]
    return column.zip_with(column.is_not_null(), found).alias(name)
