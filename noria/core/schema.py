"""Schema: the columns that data promises to have, with their types and whether they may be missing.

A schema is written as a plain dictionary. A question mark after a type allows missing values:

>>> schema = Schema.of({"user_id": "int64", "delay": "float64?", "at": Timestamp("s")})
>>> schema["delay"].nullable
True
>>> schema.time_column
'at'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from noria.core.errors import ConfigError, allowed

INTEGERS = ("int8", "int16", "int32", "int64")  # Delta Lake has no unsigned ones
FLOATS = ("float32", "float64")
DTYPES = (*INTEGERS, *FLOATS, "bool", "str", "uuid", "date", "timestamp")
TIME_UNITS = ("s", "ms", "us", "ns", "iso")


@dataclass(frozen=True)
class Timestamp:
    """An instant, kept as UTC microseconds whatever the form it arrives in.

    Attributes:
        unit: how it arrives: a number since 1970 in `s`, `ms`, `us` or `ns`, or text in ISO 8601 (`iso`).
        nullable: whether it may be missing.
    """

    unit: str = "us"
    nullable: bool = False

    def __post_init__(self) -> None:
        if self.unit not in TIME_UNITS:
            raise ConfigError(f"unknown time unit {self.unit!r}", hint=allowed(TIME_UNITS, self.unit))


@dataclass(frozen=True)
class Field:
    """One column: its name, its type (one of `DTYPES`), whether it may be missing; for instants the unit."""

    name: str
    dtype: str
    nullable: bool = False
    unit: str | None = None

    @property
    def is_number(self) -> bool:
        """Whether it holds integers or floats."""
        return self.dtype in INTEGERS or self.dtype in FLOATS

    def spec(self) -> str:
        """The field's type as a user writes it: `int64`, `float64?`, `timestamp[s]`."""
        unit = f"[{self.unit}]" if self.unit else ""
        return f"{self.dtype}{unit}{'?' if self.nullable else ''}"


@dataclass(frozen=True)
class Schema:
    """An ordered set of fields with distinct names."""

    fields: tuple[Field, ...]

    @staticmethod
    def of(columns: Schema | Mapping[str, Any]) -> Schema:
        """Read a schema from `{"column": "type"}`; a type is text (`"int64"`, `"str?"`) or a `Timestamp`.

        Raises:
            ConfigError: for an unknown type, or no columns at all.
        """
        if isinstance(columns, Schema):
            return columns
        if not isinstance(columns, Mapping) or not columns:
            raise ConfigError("a schema needs at least one column", hint='write schema={"user_id": "int64", …}')
        return Schema(tuple(_field(name, spec) for name, spec in columns.items()))

    def __iter__(self) -> Iterator[Field]:
        return iter(self.fields)

    def __len__(self) -> int:
        return len(self.fields)

    def __contains__(self, name: object) -> bool:
        return any(f.name == name for f in self.fields)

    def __getitem__(self, name: str) -> Field:
        for field in self.fields:
            if field.name == name:
                return field
        raise ConfigError(f"there is no column {name!r}", hint=allowed(self.names, name), field=name)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns, in order."""
        return tuple(f.name for f in self.fields)

    @property
    def time_column(self) -> str | None:
        """The event time: the only timestamp column, or None when there are none or several."""
        times = [f.name for f in self.fields if f.dtype == "timestamp"]
        return times[0] if len(times) == 1 else None

    def to_dict(self) -> dict[str, str]:
        """The schema as plain text types, for records and for `of`."""
        return {f.name: f.spec() for f in self.fields}


def _field(name: str, spec: Any) -> Field:
    if isinstance(spec, Timestamp):
        return Field(name, "timestamp", spec.nullable, spec.unit)
    if not isinstance(spec, str):
        raise ConfigError(f"the type of column {name!r} is {spec!r}", hint=allowed(DTYPES), field=name)
    nullable = spec.endswith("?")
    dtype = spec.removesuffix("?")
    unit: str | None = None
    if dtype.startswith("timestamp"):
        unit = dtype.removeprefix("timestamp").strip("[]") or "us"
        Timestamp(unit)  # checks the unit
        dtype = "timestamp"
    if dtype not in DTYPES:
        raise ConfigError(f"column {name!r} has the unknown type {spec!r}", hint=allowed(DTYPES, dtype), field=name)
    return Field(name, dtype, nullable, unit)
