"""Expressions over frames and over single rows, with the same bits from both.

For one row the common operations become Python functions, a hundred times faster than a frame with one row. What Polars
would do is followed to the bit: Kleene's logic for missing values, the types of every operation, integers that wrap,
float32 that rounds after each step. Where that isn't sure, the row becomes a frame after all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from noria.core import DataError
from noria.pipelines.steps.expression_constants import Prepared, prepared
from noria.pipelines.steps.expression_functions import compile_tree
from noria.pipelines.steps.expression_tree import tree
from noria.pipelines.steps.expression_values import UnsureError
from noria.pipelines.steps.step import Row


def computed(frame: pl.DataFrame, expressions: Mapping[str, pl.Expr]) -> list[pl.Series]:
    """The expressions' values, by name; NaN and infinity are missing.

    Raises:
        DataError: a value can't be computed, such as a strict cast of text that is no number.
    """
    needed = sorted({name for expression in expressions.values() for name in expression.meta.root_names()})
    schema = tuple((name, frame.schema[name]) for name in needed)
    rows = _plain(frame, needed)
    try:
        made = [_value(rows, prepared(expression.meta.serialize(), schema)) for expression in expressions.values()]
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{', '.join(map(str, expressions.values()))} can't be computed: {error}",
            hint="a cast with strict=False gives a missing value where one can't be made",
        ) from error
    return [_finite(value.alias(name)[: len(frame)]) for name, value in zip(expressions, made, strict=True)]


def _value(rows: pl.DataFrame, wanted: Prepared) -> pl.Series:
    constants = [value.new_from_index(0, len(rows)).alias(name) for name, value in wanted.constants.items()]
    value = rows.with_columns(constants).select(wanted.expression.alias("__value__")).to_series()
    # Where a condition holds for no row, Polars may give the other branch's constant as one value for all of them.
    return value if len(value) == len(rows) else value.new_from_index(0, len(rows))


def _plain(frame: pl.DataFrame, names: list[str]) -> pl.DataFrame:
    """The columns as arrays of two rows at least, so that Polars takes none of its ways for a single value."""
    rows = max(2, len(frame)) if len(frame) else 0
    if not names:
        return pl.DataFrame([pl.repeat(0, rows, eager=True).alias("rows")])
    columns = [frame[name].rechunk() for name in names]
    return pl.DataFrame(columns if rows == len(frame) else [column.new_from_index(0, rows) for column in columns])


def _finite(column: pl.Series) -> pl.Series:
    if not column.dtype.is_float() or column.is_finite().all():
        return column
    return column.set(~column.is_finite(), None)


def row_expression(expression: pl.Expr, schema: pl.Schema) -> Callable[[Row], Any]:
    """A function from a row of this schema to the expression's value."""
    names = expression.meta.root_names()
    needed = {name: schema[name] for name in schema if name in names}

    def by_frame(row: Row) -> Any:
        frame = pl.DataFrame({name: [row[name]] for name in needed}, schema=needed)
        return computed(frame, {"": expression})[0][0]

    if not needed:
        constant = computed(pl.DataFrame({"rows": [0]}), {"": expression})[0][0]
        return lambda row: constant
    try:
        found = compile_tree(tree(expression), schema)
    except (UnsureError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError):
        return by_frame
    fast, is_float = found.value, found.dtype.is_float()

    def by_row(row: Row) -> Any:
        try:
            value = fast(row)
        except (UnsureError, OverflowError):
            return by_frame(row)
        return None if is_float and value is not None and not math.isfinite(value) else value

    return by_row
