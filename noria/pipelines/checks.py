"""Checks: what a source's values promise beyond their types. A row that breaks one goes to quarantine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Protocol

from noria.core import ConfigError, Field, Schema, uuid_text
from noria.core.schema import FLOATS

if TYPE_CHECKING:
    import polars as pl


class Check(Protocol):
    """A rule for rows. Missing values break no check: whether they may be missing is the schema's business."""

    @property
    def name(self) -> str:
        """The rule as it stands in reports: `rating between 0.5 and 5.0`."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads."""
        ...

    def verify(self, schema: Schema) -> None:
        """Raise a `ConfigError` if the rule makes no sense for this schema."""
        ...

    def bad(self) -> pl.Expr:
        """True for each row that breaks the rule."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The rule as plain JSON data, with all that it depends on."""
        ...


def _numeric(check: Check, schema: Schema) -> None:
    for column in check.columns:
        if not schema[column].is_number:
            raise ConfigError(
                f"check {check.name!r}: column {column!r} is {schema[column].dtype}, not a number", field=column
            )


@dataclass(frozen=True)
class Between:
    """Numbers within bounds, both included."""

    column: str
    low: float
    high: float

    @property
    def name(self) -> str:
        low, high = (f"{bound:g}" if isinstance(bound, float) else str(bound) for bound in (self.low, self.high))
        return f"{self.column} between {low} and {high}"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def verify(self, schema: Schema) -> None:
        _numeric(self, schema)
        if not all(isinstance(bound, (int, float)) for bound in (self.low, self.high)):
            raise ConfigError(f"check of {self.column!r}: the bounds {self.low!r} and {self.high!r} must be numbers")
        if not self.low <= self.high:
            raise ConfigError(f"check {self.name!r}: the lower bound is above the upper one")

    def bad(self) -> pl.Expr:
        import polars as pl

        return ~pl.col(self.column).is_between(self.low, self.high)

    def to_dict(self) -> dict[str, Any]:
        return {"check": "between", **asdict(self)}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_int64(value: float) -> bool:
    return value == value // 1 and -(2**63) <= value < 2**63


def _fits(value: Any, field: Field) -> bool:
    if field.dtype == "uuid":
        return value is not None and uuid_text(value) == value  # as the column has it
    if field.dtype in ("str", "bool"):
        return isinstance(value, str if field.dtype == "str" else bool)
    return field.is_number and _is_number(value) and (field.dtype in FLOATS or value == value // 1)


@dataclass(frozen=True)
class OneOf:
    """Values out of a list."""

    column: str
    values: tuple[Any, ...]

    @property
    def name(self) -> str:
        shown = ", ".join(map(str, self.values[:5])) + (", …" if len(self.values) > 5 else "")
        return f"{self.column} one of {shown}"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def verify(self, schema: Schema) -> None:
        field = schema[self.column]
        if not self.values or not all(_fits(value, field) for value in self.values):
            raise ConfigError(
                f"check {self.name!r}: the values must be {field.dtype} (text, numbers or bool), and at least one",
                field=self.column,
            )

    def bad(self) -> pl.Expr:
        import polars as pl

        column = pl.col(self.column)
        if not _is_number(self.values[0]):
            return ~column.is_in(list(self.values))
        whole = [int(value) for value in self.values if _is_int64(value)]
        same = (column == column.floor()) & column.cast(pl.Int64, strict=False).is_in(whole)
        # The others one by one, so that 0.1 is compared in the column's own precision.
        others = [column == value for value in self.values if not _is_int64(value)]
        return column.is_not_null() & ~pl.any_horizontal(same, *others).fill_null(value=False)

    def to_dict(self) -> dict[str, Any]:
        return {"check": "oneof", **asdict(self)}


@dataclass(frozen=True)
class Matches:
    """Text in which a regular expression (Rust's syntax, no look-around) is found."""

    column: str
    pattern: str

    @property
    def name(self) -> str:
        return f"{self.column} matches {self.pattern}"

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def verify(self, schema: Schema) -> None:
        import polars as pl

        if schema[self.column].dtype != "str":
            raise ConfigError(f"check {self.name!r}: column {self.column!r} is not text", field=self.column)
        try:
            pl.Series([""]).str.contains(self.pattern)
        except pl.exceptions.PolarsError as error:
            raise ConfigError(f"check {self.name!r}: not a regular expression: {error}", field=self.column) from error

    def bad(self) -> pl.Expr:
        import polars as pl

        return ~pl.col(self.column).str.contains(self.pattern)

    def to_dict(self) -> dict[str, Any]:
        return {"check": "matches", **asdict(self)}


@dataclass(frozen=True)
class Unique:
    """Values (of one column, or of several together) that stand in one row only; the first row is the good one."""

    columns: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{', '.join(self.columns)} unique"

    def verify(self, schema: Schema) -> None:
        if not self.columns:
            raise ConfigError("check unique: name at least one column")
        for column in self.columns:
            _ = schema[column]

    def bad(self) -> pl.Expr:
        import polars as pl

        present = pl.all_horizontal(pl.col(name).is_not_null() for name in self.columns)
        values = pl.col(*self.columns) if len(self.columns) == 1 else pl.struct(self.columns)
        return present & ~values.is_first_distinct()

    def to_dict(self) -> dict[str, Any]:
        return {"check": "unique", **asdict(self)}


def between(column: str, low: float, high: float) -> Check:
    """The column's numbers lie within bounds, both included."""
    return Between(column, low, high)


def one_of(column: str, values: Sequence[Any]) -> Check:
    """The column's values are out of a list."""
    return OneOf(column, tuple(values))


def matches(column: str, pattern: str) -> Check:
    """A regular expression is found in the column's text; anchor it with `^` and `$` to match the whole."""
    return Matches(column, pattern)


def unique(*columns: str) -> Check:
    """No two rows have the same values in these columns together."""
    return Unique(columns)
