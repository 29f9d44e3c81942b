"""Change columns' types and names, and leave columns out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from noria.core import ConfigError, Schema, allowed
from noria.pipelines.blocks import Blocks
from noria.pipelines.convert import can_convert, convert
from noria.pipelines.dtypes import polars_type
from noria.pipelines.steps.step import ByRow, Row, RowFunction, chosen


@dataclass(frozen=True)
class Cast:
    """Changes columns' types, as in a schema: `nr.Cast({"age": "float32"})`. A value that doesn't fit is missing."""

    types: Mapping[str, Any]

    def fit(self, blocks: Blocks) -> FittedCast:
        wanted = Schema.of(
            {name: t if not isinstance(t, str) else t.removesuffix("?") for name, t in self.types.items()}
        )
        schema = blocks.schema
        chosen(schema, wanted.names, list(schema), "Cast")
        for field in wanted:
            if not can_convert(field, schema[field.name]):
                raise ConfigError(
                    f"Cast: column {field.name!r} is {schema[field.name]}, which can't become {field.spec()}",
                    field=field.name,
                )
        return FittedCast(wanted)

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Cast", "types": Schema.of(self.types).to_dict()}


@dataclass(frozen=True)
class FittedCast(ByRow):
    """Casts to these types."""

    types: Schema

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(convert(field, frame[field.name]) for field in self.types)

    def row(self, schema: pl.Schema) -> RowFunction:
        exact = {pl.Int64(): (pl.Float64(), float), pl.Boolean(): (pl.Int64(), int)}
        slow, fast = [], []
        for field in self.types:
            target, function = exact.get(schema[field.name], (None, None))
            if function is not None and target == polars_type(field):
                fast.append((field.name, function))
            elif schema[field.name] != polars_type(field) or field.dtype in ("str", "uuid"):
                slow.append((field, schema[field.name]))

        def cast(row: Row) -> bool:
            for name, function in fast:
                if row[name] is not None:
                    row[name] = function(row[name])
            for field, dtype in slow:
                row[field.name] = convert(field, pl.Series(field.name, [row[field.name]], dtype))[0]
            return True

        return cast

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Cast", "types": self.types.to_dict()}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedCast:
        """The reverse of `to_dict`."""
        return FittedCast(Schema.of(state["types"]))


@dataclass(frozen=True)
class Rename:
    """Gives columns other names: `nr.Rename({"old": "new"})`."""

    names: Mapping[str, str]

    def fit(self, blocks: Blocks) -> FittedRename:
        schema = blocks.schema
        chosen(schema, list(self.names), list(schema), "Rename")
        made = [self.names.get(name, name) for name in schema]
        twice = next((name for name in made if made.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"Rename: two columns would be named {twice!r}", field=twice)
        return FittedRename(dict(self.names))

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Rename", "names": dict(self.names)}


@dataclass(frozen=True)
class FittedRename(ByRow):
    """Renames so."""

    names: dict[str, str]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.rename(self.names)

    def row(self, schema: pl.Schema) -> RowFunction:
        names = [(name, self.names.get(name, name)) for name in schema]

        def rename(row: Row) -> bool:
            made = {new: row[old] for old, new in names}
            row.clear()
            row.update(made)
            return True

        return rename

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Rename", "names": self.names}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedRename:
        """The reverse of `to_dict`."""
        return FittedRename(dict(state["names"]))


@dataclass(frozen=True)
class Drop:
    """Leaves columns out."""

    columns: Sequence[str]

    def fit(self, blocks: Blocks) -> FittedDrop:
        schema = blocks.schema
        names = chosen(schema, self.columns, list(schema), "Drop")
        if len(set(names)) == len(schema):
            raise ConfigError("Drop: no column would be left", hint=allowed(list(schema)))
        return FittedDrop(names)

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Drop", "columns": list(self.columns)}


@dataclass(frozen=True)
class FittedDrop(ByRow):
    """Leaves these out."""

    columns: tuple[str, ...]

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.drop(self.columns)

    def row(self, schema: pl.Schema) -> RowFunction:
        columns = self.columns

        def drop(row: Row) -> bool:
            for name in columns:
                del row[name]
            return True

        return drop

    def to_dict(self) -> dict[str, Any]:
        return {"step": "Drop", "columns": list(self.columns)}

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedDrop:
        """The reverse of `to_dict`."""
        return FittedDrop(tuple(state["columns"]))
