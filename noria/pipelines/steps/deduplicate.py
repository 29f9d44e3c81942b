"""Keep one row of each key."""

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
from noria.pipelines.steps.step import chosen
from noria.pipelines.steps.whole_table import WholeTable

KEEP = ("newest", "oldest", "first", "last")
Dropped = dict[int, NDArray[np.uint32]]
_RANGE_ROWS = 4_000_000
"""Rows whose keys are compared at a time."""


@dataclass(frozen=True)
class Deduplicate:
    """Keeps one row of those that have the same values in some columns; where one of them is missing, all are kept.

    Fitting holds 20 bytes of memory for each row (28 with `time`), and for each row that is dropped 4 more. Rows are
    compared by 128-bit hashes of the columns.

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
    """The rows' keys in ascending order, and their times as integers of the same order."""
    hashes = key_hashes(frame, by)
    if time is None:
        return hashes, np.zeros(len(hashes), np.int8)
    times = frame[time].to_physical()
    known = times.is_not_null().to_numpy()
    if times.dtype.is_float():
        values = times.cast(pl.Float64).fill_null(float("nan")).to_numpy()
        known = known & ~np.isnan(values)
        bits = (values + 0.0).view(np.int64)
        order = np.where(bits < 0, ~bits ^ np.int64(-(2**63)), bits)
    else:
        order = times.cast(pl.Int64).fill_null(0).to_numpy()
    return hashes, np.where(known, order, _NEVER)[hashes["row"]]


_NEVER = np.int64(-(2**63))
"""Instead of a time that is missing."""


def _losers(hashes: list[Hashes], times: list[NDArray[Any]], keep: str) -> Dropped:
    """By block, the rows that give way to another; keys are compared range by range, so that few are copied."""
    ranges = max(1, -(-sum(map(len, hashes)) // _RANGE_ROWS))
    bounds = np.array([2**64 * n // ranges for n in range(1, ranges)], np.uint64)
    cuts = [[0, *np.searchsorted(part["high"], bounds).tolist(), len(part)] for part in hashes]
    lost: dict[int, list[NDArray[np.uint32]]] = {}
    for n in range(ranges):
        some = [part[cut[n] : cut[n + 1]] for part, cut in zip(hashes, cuts, strict=True)]
        when = [part[cut[n] : cut[n + 1]] for part, cut in zip(times, cuts, strict=True)]
        blocks = np.repeat(np.arange(len(some), dtype=np.uint32), [len(part) for part in some])
        for block, rows in _losers_of(np.concatenate(some), np.concatenate(when), blocks, keep):
            lost.setdefault(block, []).append(rows)
    return {block: np.sort(np.concatenate(rows)) for block, rows in lost.items()}


def _losers_of(
    whole: Hashes, when: NDArray[Any], blocks: NDArray[np.uint32], keep: str
) -> list[tuple[int, NDArray[np.uint32]]]:
    # Most keys stand in one row: only the others are sorted in full.
    high = np.sort(whole["high"])
    several = np.isin(whole["high"], np.unique(high[1:][high[1:] == high[:-1]]))
    whole, when, blocks = whole[several], when[several], blocks[several]
    rows = whole["row"]
    if keep == "oldest":
        when = np.where(when == _NEVER, when, ~when)
    if keep == "first":
        order = np.lexsort((~rows, ~blocks, whole["low"], whole["high"]))
    else:
        order = np.lexsort((rows, blocks, when, whole["low"], whole["high"]))
    # The row that is kept comes last of its key.
    high, low = whole["high"][order], whole["low"][order]
    lost = order[np.flatnonzero((high[1:] == high[:-1]) & (low[1:] == low[:-1]))]
    where = blocks[lost]
    return [(int(block), rows[lost[where == block]]) for block in np.unique(where)]


@dataclass(frozen=True)
class FittedDeduplicate(WholeTable):
    """Drops these rows of the blocks that it was fitted to."""

    dropped: Dropped = field(default_factory=dict, compare=False)

    def apply_to_fit(self, frame: pl.DataFrame, block: int) -> pl.DataFrame:
        rows = self.dropped.get(block)
        if rows is None or frame.is_empty():
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
