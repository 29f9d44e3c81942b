"""Categories: the most frequent values of columns and their counts, exact, in memory that doesn't grow with the rows.

Few different values are counted in one pass. Where a column has too many for that, it is read several times, each time
only those values whose hash is in one part of the hashes; of each part the most frequent are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import polars as pl

from noria.pipelines.blocks import Blocks

_IN_BLOCK = 50_000
"""Different values in one block that are counted at once."""
_AT_ONCE = 1_000_000
"""Different values of all blocks that are counted at once, about."""

Counted = pl.DataFrame | int
"""Values (`value`) with their `count`; or how many different ones there are, if too many."""


@dataclass(frozen=True)
class Categories:
    """A column's values.

    Attributes:
        top: `value` and `count`, the most frequent first, of equally frequent ones the smaller value first.
        missing: rows without a value; NaN is none.
        rows: all rows.
    """

    top: pl.DataFrame
    missing: int
    rows: int


def categories(blocks: Blocks, names: Sequence[str], most: int, known: str | None = None) -> dict[str, Categories]:
    """The `most` most frequent values of each column, of rows in which the column `known` has a value."""
    if not names:
        return {}
    parts = blocks.map(partial(_count, tuple(names), known))
    found = {}
    for name in names:
        mine = [part[name] for part in parts]
        counted = [values for values, _, _ in mine if isinstance(values, pl.DataFrame)]
        if len(counted) == len(mine):
            top = _top([_added(counted)], most)
        else:
            different = sum(values if isinstance(values, int) else len(values) for values, _, _ in mine)
            top = _by_parts(blocks, name, known, most, -(-different // _AT_ONCE))
        found[name] = Categories(top, sum(missing for _, missing, _ in mine), sum(rows for _, _, rows in mine))
    return found


def _by_parts(blocks: Blocks, name: str, known: str | None, most: int, parts: int) -> pl.DataFrame:
    top: list[pl.DataFrame] = []
    for number in range(parts):
        top = [_top([*top, _added(blocks.map(partial(_count_part, name, known, parts, number)))], most)]
    return top[0]


def _top(counts: list[pl.DataFrame], most: int) -> pl.DataFrame:
    return pl.concat(counts).sort(["count", "value"], descending=[True, False]).head(most)


def _added(counts: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(counts).group_by("value").agg(pl.col("count").sum())


def _values(frame: pl.DataFrame, name: str, known: str | None) -> pl.DataFrame:
    values = frame.select(pl.col(name).alias("value")) if known is None else _where_known(frame, name, known)
    return values.with_columns(pl.col("value").fill_nan(None)) if values["value"].dtype.is_float() else values


def _where_known(frame: pl.DataFrame, name: str, known: str) -> pl.DataFrame:
    mask = pl.col(known).is_not_null()
    if frame.schema[known].is_float():
        mask &= pl.col(known).is_finite()
    return frame.filter(mask).select(pl.col(name).alias("value"))


def _count(
    names: tuple[str, ...], known: str | None, frame: pl.DataFrame, block: int
) -> dict[str, tuple[Counted, int, int]]:
    made: dict[str, tuple[Counted, int, int]] = {}
    for name in names:
        values = _values(frame, name, known)
        counts = _grouped(values)
        made[name] = (counts if len(counts) <= _IN_BLOCK else len(counts), values["value"].null_count(), len(values))
    return made


def _count_part(name: str, known: str | None, parts: int, number: int, frame: pl.DataFrame, block: int) -> pl.DataFrame:
    values = _values(frame, name, known)
    return _grouped(values.filter(pl.col("value").hash() % parts == number))


def _grouped(values: pl.DataFrame) -> pl.DataFrame:
    values = values.drop_nulls() if values["value"].null_count() else values  # which copies, also for nothing
    return values.group_by("value").agg(pl.len().cast(pl.Int64).alias("count"))
