"""Contract: which rows hold what their source promises, and every reason of those that don't. Columns, not rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from noria.core import Schema
from noria.pipelines.convert import converted, is_unfit, readable, type_reason
from noria.pipelines.extract import POSITION, Extracted
from noria.pipelines.source import Source

REASONS = "__reasons__"
FILE = "__file__"
_UNFIT = "__unfit__"


@dataclass(frozen=True)
class Judged:
    """Rows that hold the contract, and those that don't.

    `good` has the schema's columns; `bad` has `FILE` (its place in the list of files), `POSITION`, `REASONS` and the
    row's text as JSON in `row`.
    """

    good: pl.DataFrame
    bad: pl.DataFrame


def judge(files: Sequence[Extracted], source: Source) -> Judged:
    """Convert every column to its type and try every rule, those such as uniqueness on all files together.

    A row's reasons are texts such as `rating: 'abc' is not float32` or a check's name.

    Raises:
        SchemaError: a file's column has a type that can't become the schema's.
    """
    # Each file by itself: two files whose columns differ in type have no common one that keeps all values.
    typed = [_typed(file, source.schema) for file in files]
    whole = pl.concat([frame.select(*source.schema.names, _UNFIT) for frame in typed])
    broken = whole.select(
        check.bad().fill_null(value=False).alias(f"__check__{number}") for number, check in enumerate(source.checks)
    )
    is_bad = whole[_UNFIT]
    for column in broken.iter_columns():
        is_bad |= column
    bad, start = [], 0
    for number, frame in enumerate(typed):
        here = slice(start, start + len(frame))
        rows = pl.concat([frame, broken[here]], how="horizontal") if source.checks else frame
        bad.append(_explained(rows.filter(is_bad[here]), number, source))
        start = here.stop
    return Judged(whole.filter(~is_bad).select(source.schema.names), pl.concat(bad))


def _raw(name: str) -> str:
    return f"__raw__{name}"


def _typed(file: Extracted, schema: Schema) -> pl.DataFrame:
    """The file's columns as they are, in their types, and whether some value doesn't fit its type."""
    frame = file.frame.rename({name: _raw(name) for name in schema.names})
    made = frame.with_columns(converted(file.file, field, _raw(field.name), frame) for field in schema)
    unfit = [
        is_unfit(field, _raw(field.name), frame.schema[_raw(field.name)])
        for field in schema
        if made[field.name].null_count()
    ]
    return made.with_columns((pl.any_horizontal(unfit) if unfit else pl.lit(value=False)).alias(_UNFIT))


def _explained(rows: pl.DataFrame, number: int, source: Source) -> pl.DataFrame:
    """Bad rows of one file with their reasons and their text."""
    raw = {name: _raw(name) for name in source.schema.names}
    reasons = [type_reason(field, raw[field.name], rows.schema[raw[field.name]]) for field in source.schema]
    reasons += [pl.when(pl.col(f"__check__{at}")).then(pl.lit(check.name)) for at, check in enumerate(source.checks)]
    text = pl.struct(readable(raw[name], rows.schema[raw[name]]).alias(name) for name in raw).struct.json_encode()
    return rows.select(
        pl.lit(number).alias(FILE),
        POSITION,
        pl.concat_list(reason.alias(str(at)) for at, reason in enumerate(reasons)).list.drop_nulls().alias(REASONS),
        text.alias("row"),
    )
