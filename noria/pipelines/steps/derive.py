"""New columns by expressions, and rows by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl

from noria.core import ConfigError, allowed
from noria.pipelines.blocks import Blocks
from noria.pipelines.expressions import definition, loaded, saved
from noria.pipelines.steps.expression_rows import computed, row_expression
from noria.pipelines.steps.expression_tree import tree, verify
from noria.pipelines.steps.step import ByRow, Row, RowFunction


@dataclass(frozen=True)
class Derive:
    """Adds columns, or replaces them, by expressions of a row's columns, all as they were before: `nr.col("a") * 2`.

    An expression looks at one row at a time. Where it gives NaN or infinity, as 1 / 0 does, the value is missing.
    """

    columns: Mapping[str, pl.Expr]

    def __post_init__(self) -> None:
        if not self.columns or not all(isinstance(e, pl.Expr) for e in self.columns.values()):
            raise ConfigError(
                "Derive needs expressions", hint='nr.Derive({"speed": nr.col("distance") / nr.col("time")})'
            )

    def fit(self, blocks: Blocks) -> FittedDerive:
        for name, expression in self.columns.items():
            verify_expression(expression, blocks.schema, f"Derive {name!r}")
        return FittedDerive(dict(self.columns))

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Derive", "columns": {name: definition(e) for name, e in self.columns.items()}}


@dataclass(frozen=True)
class FittedDerive(ByRow):
    """Derives these columns."""

    columns: dict[str, pl.Expr]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(computed(frame, self.columns))

    def row(self, schema: pl.Schema) -> RowFunction:
        functions = [(name, row_expression(expression, schema)) for name, expression in self.columns.items()]

        def derive(row: Row) -> bool:
            row.update([(name, function(row)) for name, function in functions])
            return True

        return derive

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Derive", "columns": {name: saved(expression) for name, expression in self.columns.items()}}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedDerive:
        """The reverse of `to_dict`."""
        return FittedDerive({name: loaded(expression) for name, expression in state["columns"].items()})


@dataclass(frozen=True)
class Filter:
    """Keeps the rows for which an expression is true."""

    expression: pl.Expr

    def fit(self, blocks: Blocks) -> FittedFilter:
        if verify_expression(self.expression, blocks.schema, "Filter") != pl.Boolean:
            raise ConfigError(f"Filter: {self.expression} is neither true nor false", hint='nr.Filter(nr.col("a") > 1)')
        return FittedFilter(self.expression)

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Filter", "expression": definition(self.expression)}


@dataclass(frozen=True)
class FittedFilter(ByRow):
    """Filters by this expression."""

    expression: pl.Expr

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter(computed(frame, {"": self.expression})[0])

    def row(self, schema: pl.Schema) -> RowFunction:
        keep = row_expression(self.expression, schema)
        return lambda row: keep(row) is True

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Filter", "expression": saved(self.expression)}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedFilter:
        """The reverse of `to_dict`."""
        return FittedFilter(loaded(state["expression"]))


def verify_expression(expression: pl.Expr, schema: pl.Schema, what: str) -> pl.DataType:
    """The type of an expression over these columns."""
    verify(tree(expression), what)
    for name in expression.meta.root_names():
        if name not in schema:
            raise ConfigError(f"{what}: there is no column {name!r}", hint=allowed(list(schema), name), field=name)
    try:
        return pl.DataFrame(schema=schema).select(expression).dtypes[0]
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise ConfigError(f"{what}: {expression} can't be computed: {error}") from error
