"""Feature definitions: what is known about an entity, said once, for the batch, the stream and the online path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from noria.core import ConfigError, Field, allowed, duration

if TYPE_CHECKING:
    import polars as pl

KINDS = (
    "latest",
    "count",
    "sum",
    "mean",
    "min",
    "max",
    "std",
    "first",
    "last",
    "distinct",
    "top_k",
    "decayed_sum",
    "derived",
)
_OF_NUMBERS = ("sum", "mean", "min", "max", "std", "decayed_sum")
_LISTS = ("last", "top_k")


@dataclass(frozen=True)
class Feature:
    """One feature of an entity, computed from its events strictly before an instant t.

    NaN and infinity count as missing, as they do in a source.

    Attributes:
        kind: one of `KINDS`.
        column: the source's column that it reads; None for `count` and `derived`.
        window: only events in [t - window, t) count; None for all time. Text such as `30d`.
        n: the number of values that `last` and `top_k` keep.
        where: only events for which this is true count.
        half_life: of `decayed_sum`: after so long an event counts half.
        expression: of `derived`: over the group's other features.
    """

    kind: str
    column: str | None = None
    window: str | None = None
    n: int | None = None
    # Expressions have no equality of their own: `to_dict` tells definitions apart.
    where: pl.Expr | None = field(default=None, compare=False)
    half_life: str | None = None
    expression: pl.Expr | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"there is no kind of feature {self.kind!r}", hint=allowed(KINDS, self.kind))
        for text in (self.window, self.half_life):
            if text is not None:
                duration(text)
        if self.column is not None and not isinstance(self.column, str):
            raise ConfigError(f"{self.kind}({self.column}) reads no column", hint="name it: a text, not an expression")
        for what, given in (("where=", self.where), ("", self.expression)):
            if given is not None and not hasattr(given, "meta"):
                raise ConfigError(
                    f"{self.kind}({what}{given!r}): that is no expression", hint='such as nr.col("price") > 0'
                )
        if self.kind == "derived" and self.expression is None:
            raise ConfigError("derived(None) computes nothing", hint='nr.derived(nr.col("spent") / nr.col("orders"))')
        if self.is_list and (type(self.n) is not int or self.n < 1):
            word = "k" if self.kind == "top_k" else "n"
            raise ConfigError(
                f"{self.kind}({self.column!r}, {word}={self.n!r}): {word} must be at least 1",
                hint=f"{word} is a whole number",
                field=word,
            )

    @property
    def window_micros(self) -> int | None:
        """The window in microseconds; None for all time."""
        return None if self.window is None else duration(self.window)

    @property
    def half_life_micros(self) -> int:
        """The half-life in microseconds."""
        return duration(str(self.half_life))

    @property
    def inputs(self) -> list[str]:
        """The group's features that a derived one is computed from."""
        return [] if self.expression is None else self.expression.meta.root_names()

    @property
    def is_list(self) -> bool:
        """Whether a value is a list, which a model can't read."""
        return self.kind in _LISTS

    def dtype(self, column: Field | None) -> str:
        """The type of a value (of the list's elements), as in a schema; a derived feature's comes from its group."""
        if self.kind in ("count", "distinct") or column is None:
            return "int64"
        if self.kind in ("mean", "std", "decayed_sum"):
            return "float64"
        if self.kind == "sum":
            return "int64" if column.dtype.startswith("int") else "float64"
        return column.dtype

    def check(self, column: Field | None) -> None:
        """Raise a `ConfigError` if the feature can't be computed from that column."""
        if self.kind in _OF_NUMBERS and column is not None and not column.is_number:
            raise ConfigError(
                f"{self.kind}({column.name!r}) needs a column of numbers, and it is {column.dtype}",
                hint="use latest, first, last, distinct, top_k or count",
                field=column.name,
            )

    @property
    def empty(self) -> Any:
        """The value for an entity without any event: nothing was counted, and nothing else is known."""
        return [] if self.is_list else {"count": 0, "distinct": 0}.get(self.kind)

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data; what isn't set isn't named."""
        from noria.pipelines.expressions import definition

        plain = {"kind": self.kind, "column": self.column, "window": self.window, "n": self.n}
        plain["half_life"] = self.half_life
        for name, expression in (("where", self.where), ("expression", self.expression)):
            plain[name] = None if expression is None else definition(expression)
        return {name: value for name, value in plain.items() if value is not None}

    def to_state(self) -> dict[str, Any]:
        """The definition as JSON data from which it can be made again."""
        from noria.pipelines.expressions import saved

        state: dict[str, Any] = {"kind": self.kind, "column": self.column, "window": self.window, "n": self.n}
        state |= {"half_life": self.half_life}
        state |= {"where": None if self.where is None else saved(self.where)}
        return state | {"expression": None if self.expression is None else saved(self.expression)}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Feature:
        """The reverse of `to_state`.

        Raises:
            DataError: an expression was saved by another version of Polars.
        """
        from noria.pipelines.expressions import loaded

        made = dict(state)
        for name in ("where", "expression"):
            made[name] = None if made[name] is None else loaded(made[name])
        return Feature(**made)


def latest(column: str, *, where: pl.Expr | None = None) -> Feature:
    """The value of the newest event (a missing value included: it says that the value is gone)."""
    return Feature("latest", column, where=where)


def count(*, window: str | None = None, where: pl.Expr | None = None) -> Feature:
    """How many events there are."""
    return Feature("count", None, window, where=where)


def sum(column: str, *, window: str | None = None, where: pl.Expr | None = None) -> Feature:  # noqa: A001
    """The sum of the values that aren't missing; missing when there are none."""
    return Feature("sum", column, window, where=where)


def mean(column: str, *, window: str | None = None, where: pl.Expr | None = None) -> Feature:
    """The mean of the values that aren't missing; missing when there are none."""
    return Feature("mean", column, window, where=where)


def min(column: str, *, window: str | None = None, where: pl.Expr | None = None) -> Feature:  # noqa: A001
    """The smallest value; missing when there are none."""
    return Feature("min", column, window, where=where)


def max(column: str, *, window: str | None = None, where: pl.Expr | None = None) -> Feature:  # noqa: A001
    """The largest value; missing when there are none."""
    return Feature("max", column, window, where=where)


def std(column: str, *, window: str | None = None, where: pl.Expr | None = None) -> Feature:
    """The standard deviation of the values (of the population: 0 for one value); missing when there are none."""
    return Feature("std", column, window, where=where)


def first(column: str, *, window: str | None = None, where: pl.Expr | None = None) -> Feature:
    """The oldest value that isn't missing; missing when there are none."""
    return Feature("first", column, window, where=where)


def last(column: str, *, n: int, window: str | None = None, where: pl.Expr | None = None) -> Feature:
    """The newest `n` values that aren't missing, the newest first; fewer when there are fewer."""
    return Feature("last", column, window, n, where)


def distinct(column: str, *, window: str | None = None, where: pl.Expr | None = None) -> Feature:
    """How many different values there are; a missing one is none."""
    return Feature("distinct", column, window, where=where)


def top_k(column: str, *, k: int, window: str | None = None, where: pl.Expr | None = None) -> Feature:
    """The `k` most frequent values, the most frequent first; of equally frequent ones that which came last."""
    return Feature("top_k", column, window, k, where)


def decayed_sum(column: str, *, half_life: str, where: pl.Expr | None = None) -> Feature:
    """The sum of value × 2^(-age / half_life), the age at t; missing when there are no values."""
    return Feature("decayed_sum", column, half_life=half_life, where=where)


def derived(expression: pl.Expr) -> Feature:
    """Computed from other features of the group, by their names: `nr.derived(nr.col("spent") / nr.col("orders"))`.

    Where the expression gives NaN or infinity, as 1 / 0 does, the value is missing.
    """
    return Feature("derived", expression=expression)
