"""Turn categories into numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from noria.core import ConfigError, allowed
from noria.pipelines.blocks import Blocks
from noria.pipelines.steps.categories import categories
from noria.pipelines.steps.encode_hash import MISSING, FittedHash
from noria.pipelines.steps.encode_numbers import FittedNumbers, fit_frequency, fit_target
from noria.pipelines.steps.step import ByRow, Row, RowFunction, chosen, listed, numeric, textual

METHODS = ("ordinal", "category", "onehot", "frequency", "hash", "target")
_UNSEEN = -1.0


@dataclass(frozen=True)
class Encode:
    """Replaces text by numbers.

    Attributes:
        columns: which; by default all text.
        method: `ordinal`: the category's place among the fitted ones in alphabetical order, as float32; a category
            that wasn't there when fitting is -1, a missing one -2.
            `category`: the same, but a category that wasn't there when fitting is missing, as a missing one is: for
            models that know categories and gaps.
            `onehot`: a column of 0 and 1 for each category, named `column=category`; unseen and missing ones are zeros.
            `frequency`: the category's share of the fitted rows; 0 for an unseen one, for a missing one the share of
            missing ones.
            `hash`: a bucket from 0 to `buckets` - 1, as float32, by the 8-byte BLAKE2b digest of the category's
            UTF-8, read as a little-endian integer; nothing is unseen, a missing one is -2.
            `target`: the mean of the column `target` over the category's rows, drawn towards the mean of all by
            `smoothing` rows of it; the mean of all for an unseen one, missing is a category of its own. The rows that
            it is fitted to get the means of the other four fifths of the rows, so that no row sees its own target.
        max_categories: with more, only the most frequent ones are kept; the others count as unseen.
        buckets: of `hash`.
        target: a column of numbers, for `target`; it stays as it is.
        smoothing: rows, for `target`.
    """

    columns: Sequence[str] | None = None
    method: str = "ordinal"
    max_categories: int = 1000
    buckets: int = 1024
    target: str | None = None
    smoothing: float = 10.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"Encode: unknown method {self.method!r}", hint=allowed(METHODS, self.method))
        if self.max_categories < 1 or self.buckets < 1 or self.smoothing < 0:
            raise ConfigError("Encode: max_categories and buckets must be at least 1, and smoothing at least 0")
        if (self.method == "target") != (self.target is not None):
            raise ConfigError("Encode: target= goes with method='target', and only with it", field="target")

    def touched(self, schema: pl.Schema) -> tuple[str, ...]:
        names = self._names(schema)
        return names if self.target is None else (*names, self.target)

    def _names(self, schema: pl.Schema) -> tuple[str, ...]:
        return chosen(schema, self.columns, textual(schema), "Encode")

    def fit(self, blocks: Blocks) -> FittedEncode | FittedNumbers | FittedHash:
        schema = blocks.schema
        names = self._names(schema)
        if self.method == "hash":
            return FittedHash(names, self.buckets)
        if self.method == "target":
            (target,) = chosen(schema, [str(self.target)], numeric(schema), "Encode")
            return fit_target(blocks, names, target, self.max_categories, self.smoothing)
        found = categories(blocks, names, self.max_categories)
        if self.method == "frequency":
            return fit_frequency(found)
        kept = {name: sorted(values.top["value"].to_list()) for name, values in found.items()}
        if self.method == "onehot":
            _verify_new_names(schema, kept)
        return FittedEncode(self.method, kept)

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"step": "Encode", "columns": listed(self.columns), "method": self.method}
        if self.method == "hash":
            return {**plain, "buckets": self.buckets}
        plain["max_categories"] = self.max_categories
        return {**plain, "target": self.target, "smoothing": self.smoothing} if self.method == "target" else plain


def _verify_new_names(schema: pl.Schema, kept: dict[str, list[str]]) -> None:
    seen = {name for name in schema if name not in kept}
    for made in (f"{name}={value}" for name, values in kept.items() for value in values):
        if made in seen:
            raise ConfigError(f"Encode: two columns would be named {made!r}", hint="rename one: nr.Rename", field=made)
        seen.add(made)


@dataclass(frozen=True)
class FittedEncode(ByRow):
    """Encodes by these categories."""

    method: str
    categories: dict[str, list[str]]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self.method in ("ordinal", "category"):
            return frame.with_columns(self._ordinal(name, values) for name, values in self.categories.items())
        columns: list[pl.Expr] = []
        for name in frame.columns:
            values = self.categories.get(name)
            columns += [pl.col(name)] if values is None else [self._indicator(name, value) for value in values]
        return frame.select(columns) if columns else frame

    def _ordinal(self, name: str, values: list[str]) -> pl.Expr:
        # An enum's codes: several times faster than a join or a rank.
        codes = pl.col(name).cast(pl.Enum(values), strict=False).to_physical().cast(pl.Float32)
        if self.method == "category":
            return codes
        other = pl.when(pl.col(name).is_null()).then(pl.lit(MISSING, pl.Float32)).otherwise(
            pl.lit(_UNSEEN, pl.Float32)
        )  # fmt: skip
        return pl.coalesce(codes, other).alias(name)

    def _indicator(self, name: str, value: str) -> pl.Expr:
        return (pl.col(name) == value).fill_null(value=False).cast(pl.Float32).alias(f"{name}={value}")

    def row(self, schema: pl.Schema) -> RowFunction:
        if self.method in ("ordinal", "category"):
            is_category = self.method == "category"
            missing, unseen = (None, None) if is_category else (MISSING, _UNSEEN)
            codes = [(n, {v: float(at) for at, v in enumerate(values)}) for n, values in self.categories.items()]

            def ordinal(row: Row) -> bool:
                for name, code in codes:
                    value = row[name]
                    row[name] = missing if value is None else code.get(value, unseen)
                return True

            return ordinal
        order = [(name, self.categories.get(name)) for name in schema]
        zeros = {name: {v: f"{name}={v}" for v in values} for name, values in self.categories.items()}

        def onehot(row: Row) -> bool:
            made: Row = {}
            for name, values in order:
                value = row[name]
                if values is None:
                    made[name] = value
                    continue
                for column in zeros[name].values():
                    made[column] = 0.0
                if value in zeros[name]:
                    made[zeros[name][value]] = 1.0
            row.clear()
            row.update(made)
            return True

        return onehot

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Encode", "method": self.method, "categories": self.categories}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedEncode | FittedNumbers | FittedHash:
        """The reverse of `to_dict`."""
        if "numbers" in state:
            return FittedNumbers(state["numbers"], state["unseen"], state["missing"])
        if "buckets" in state:
            return FittedHash(tuple(state["columns"]), state["buckets"])
        return FittedEncode(state["method"], {name: list(values) for name, values in state["categories"].items()})
