"""Turn categories into numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from noria.core import ConfigError, allowed
from noria.pipelines.blocks import Blocks
from noria.pipelines.steps.statistics import value_counts
from noria.pipelines.steps.step import ByRow, Row, RowFunction, chosen, listed, textual

METHODS = ("ordinal", "onehot", "frequency", "hash", "target")
_FOLDS = 5
_UNSEEN, _MISSING = -1.0, -2.0


@dataclass(frozen=True)
class Encode:
    """Replaces text by numbers.

    Attributes:
        columns: which; by default all text.
        method: `ordinal`: the category's place among the fitted ones in alphabetical order, as float32; a category
            that wasn't there when fitting is -1, a missing one -2.
            `onehot`: a column of 0 and 1 for each category, named `column=category`; unseen and missing ones are zeros.
            `frequency`: the category's share of the fitted rows; 0 for an unseen one, for a missing one the share of
            missing ones.
            `hash`: a bucket from 0 to `buckets` - 1, as float32, by the first 8 bytes of BLAKE2b of the category's
            UTF-8, little-endian; nothing is unseen, a missing one is -2.
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

    def fit(self, blocks: Blocks) -> FittedEncode | FittedNumbers | FittedHash:
        schema = blocks.schema
        names = chosen(schema, self.columns, textual(schema), "Encode")
        if self.method == "hash":
            return FittedHash(names, self.buckets)
        if self.method == "target":
            return self._fit_target(blocks, names)
        counts = value_counts(blocks, names)
        kept = {name: self._kept(found) for name, found in counts.items()}
        if self.method == "frequency":
            rows = {name: max(1, int(found["count"].sum())) for name, found in counts.items()}
            maps = {name: dict(zip(k["value"].to_list(), (k["count"] / rows[name]).to_list(), strict=True))
                    for name, k in kept.items()}  # fmt: skip
            missing = {name: int(counts[name].filter(pl.col("value").is_null())["count"].sum()) for name in names}
            return FittedNumbers(maps, dict.fromkeys(names, 0.0), {n: missing[n] / rows[n] for n in names})
        categories = {name: found["value"].to_list() for name, found in kept.items()}
        if self.method == "onehot":
            _verify_new_names(schema, categories)
        return FittedEncode(self.method, categories)

    def _kept(self, counts: pl.DataFrame) -> pl.DataFrame:
        """The categories that are kept, in alphabetical order."""
        present = counts.drop_nulls("value")
        if len(present) > self.max_categories:
            present = present.sort(["count", "value"], descending=[True, False]).head(self.max_categories)
        return present.sort("value")

    def _fit_target(self, blocks: Blocks, names: tuple[str, ...]) -> FittedNumbers:
        target = str(self.target)
        (target,) = chosen(blocks.schema, [target], [n for n, t in blocks.schema.items() if t.is_numeric()], "Encode")
        names = tuple(name for name in names if name != target)
        sums = blocks.map(partial(_target_sums, names, target))
        maps, missing, folds = {}, {}, {}
        unseen = dict.fromkeys(names, 0.0)
        for name in names:
            found = pl.concat([part[name] for part in sums])
            found = found.group_by("value", "fold", maintain_order=True).agg(pl.col("sum").sum(), pl.col("rows").sum())
            total, rows = float(found["sum"].sum()), float(found["rows"].sum())
            unseen[name] = total / rows if rows else 0.0
            whole = found.group_by("value", maintain_order=True).agg(pl.col("sum").sum(), pl.col("rows").sum())
            top = whole.sort(["rows", "value"], descending=[True, False], nulls_last=True).head(self.max_categories)
            means = dict(zip(top["value"].to_list(), self._means(top, unseen[name]).to_list(), strict=True))
            missing[name] = means.pop(None, unseen[name])
            maps[name] = dict(sorted(means.items()))
            kept = whole.join(top.select("value"), on="value", how="semi", nulls_equal=True)
            folds[name] = self._out_of_fold(found, kept)
        return FittedNumbers(maps, unseen, missing, folds)

    def _means(self, sums: pl.DataFrame, overall: float) -> pl.Series:
        return (sums["sum"] + self.smoothing * overall) / (sums["rows"] + self.smoothing)

    def _out_of_fold(self, found: pl.DataFrame, whole: pl.DataFrame) -> pl.DataFrame:
        """For each category and fold the mean of the rows in the other folds."""
        every = whole.join(pl.DataFrame({"fold": range(_FOLDS)}, schema={"fold": pl.Int64}), how="cross")
        mine = every.join(found, on=["value", "fold"], how="left", nulls_equal=True, maintain_order="left")
        others = found.group_by("fold").agg(pl.col("sum").sum().alias("all"), pl.col("rows").sum().alias("all_rows"))
        total, rows = float(found["sum"].sum()), float(found["rows"].sum())
        mine = mine.join(others, on="fold", how="left", maintain_order="left")
        mine = mine.with_columns(pl.col("sum_right", "rows_right", "all", "all_rows").fill_null(0.0))
        overall = (total - pl.col("all")) / (rows - pl.col("all_rows")).clip(1.0)
        rest, count = pl.col("sum") - pl.col("sum_right"), pl.col("rows") - pl.col("rows_right")
        mean = (rest + self.smoothing * overall) / (count + self.smoothing)
        return mine.select(
            "value", "fold", pl.when(count + self.smoothing > 0).then(mean).otherwise(overall).alias("mean")
        )

    def to_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = {"step": "Encode", "columns": listed(self.columns), "method": self.method}
        if self.method == "hash":
            return {**plain, "buckets": self.buckets}
        plain["max_categories"] = self.max_categories
        return {**plain, "target": self.target, "smoothing": self.smoothing} if self.method == "target" else plain


def _verify_new_names(schema: pl.Schema, categories: dict[str, list[str]]) -> None:
    made = [f"{name}={value}" for name, values in categories.items() for value in values]
    rest = [name for name in schema if name not in categories]
    twice = next((name for name in made if name in rest or made.count(name) > 1), None) if made else None
    if twice is not None:
        raise ConfigError(f"Encode: two columns would be named {twice!r}", hint="rename one: nr.Rename", field=twice)


def _folds(rows: int, block: int) -> pl.Series:
    """A row's fold: by its place, scattered, so that sorted rows don't share one."""
    place = np.arange(rows, dtype=np.uint64) + np.uint64(block) * np.uint64(1_000_003)
    mixed = (place * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
    return pl.Series("fold", (mixed % np.uint64(_FOLDS)).astype(np.int64))


def _target_sums(names: tuple[str, ...], target: str, frame: pl.DataFrame, block: int) -> dict[str, pl.DataFrame]:
    known = frame.with_columns(_folds(len(frame), block)).filter(pl.col(target).is_not_null())
    sums = (pl.col(target).cast(pl.Float64).sum().alias("sum"), pl.len().cast(pl.Float64).alias("rows"))
    return {name: known.group_by(pl.col(name).alias("value"), "fold", maintain_order=True).agg(*sums) for name in names}


@dataclass(frozen=True)
class FittedEncode(ByRow):
    """Encodes by these categories."""

    method: str
    categories: dict[str, list[str]]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        if self.method == "ordinal":
            return frame.with_columns(self._ordinal(name, values) for name, values in self.categories.items())
        columns: list[pl.Expr] = []
        for name in frame.columns:
            values = self.categories.get(name)
            columns += [pl.col(name)] if values is None else [self._indicator(name, value) for value in values]
        return frame.select(columns) if columns else frame

    def _ordinal(self, name: str, values: list[str]) -> pl.Expr:
        # An enum's codes: several times faster than a join or a rank.
        codes = pl.col(name).cast(pl.Enum(values), strict=False).to_physical().cast(pl.Float32)
        other = pl.when(pl.col(name).is_null()).then(pl.lit(_MISSING, pl.Float32)).otherwise(
            pl.lit(_UNSEEN, pl.Float32)
        )  # fmt: skip
        return pl.coalesce(codes, other).alias(name)

    def _indicator(self, name: str, value: str) -> pl.Expr:
        return (pl.col(name) == value).fill_null(value=False).cast(pl.Float32).alias(f"{name}={value}")

    def row(self, schema: pl.Schema) -> RowFunction:
        if self.method == "ordinal":
            codes = [(n, {v: float(at) for at, v in enumerate(values)}) for n, values in self.categories.items()]

            def ordinal(row: Row) -> bool:
                for name, code in codes:
                    value = row[name]
                    row[name] = _MISSING if value is None else code.get(value, _UNSEEN)
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


@dataclass(frozen=True)
class FittedNumbers(ByRow):
    """A number for each category of a column, one for those unseen and one for those missing; float64.

    `folds` has for the rows that it was fitted to, by category and fold, numbers of their own; it isn't saved.
    """

    numbers: dict[str, dict[str, float]]
    unseen: dict[str, float]
    missing: dict[str, float]
    folds: dict[str, pl.DataFrame] = field(default_factory=dict, compare=False)

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(self._number(name, frame) for name in self.numbers)

    def _number(self, name: str, frame: pl.DataFrame) -> pl.Expr:
        numbers = self.numbers[name]
        found = pl.lit(self.unseen[name], pl.Float64)
        if numbers:
            column, made = pl.col(name), list(numbers.values())
            found = column.replace_strict(list(numbers), made, default=self.unseen[name], return_dtype=pl.Float64)
        return pl.when(pl.col(name).is_null()).then(pl.lit(self.missing[name], pl.Float64)).otherwise(found).alias(name)

    def apply_to_fit(self, frame: pl.DataFrame, block: int) -> pl.DataFrame:
        made = self.apply(frame)
        for name, means in self.folds.items():
            mine = pl.DataFrame([frame[name].alias("value"), _folds(len(frame), block)])
            found = mine.join(means, on=["value", "fold"], how="left", nulls_equal=True, maintain_order="left")["mean"]
            made = made.with_columns(found.fill_null(self.unseen[name]).alias(name))
        return made

    def row(self, schema: pl.Schema) -> RowFunction:
        columns = [(name, found, self.unseen[name], self.missing[name]) for name, found in self.numbers.items()]

        def number(row: Row) -> bool:
            for name, numbers, unseen, missing in columns:
                value = row[name]
                row[name] = missing if value is None else numbers.get(value, unseen)
            return True

        return number

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Encode", "numbers": self.numbers, "unseen": self.unseen, "missing": self.missing}


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
            return _MISSING
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
