"""Feature definitions: what is known about an entity, said once, for the batch and for the online path."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from noria.core import ConfigError, Field, duration

KINDS = ("latest", "count", "sum", "mean", "min", "max", "last")
_OF_NUMBERS = ("sum", "mean", "min", "max")


@dataclass(frozen=True)
class Feature:
    """One feature of an entity, computed from its events strictly before an instant t.

    NaN and infinity count as missing, as they do in a source.

    Attributes:
        kind: one of `KINDS`.
        column: the source's column that it reads; None for `count`.
        window: only events in [t - window, t) count; None for all time. Text such as `30d`.
        n: the number of values that `last` keeps.
    """

    kind: str
    column: str | None = None
    window: str | None = None
    n: int | None = None

    def __post_init__(self) -> None:
        if self.window is not None:
            duration(self.window)
        if self.kind == "last" and (type(self.n) is not int or self.n < 1):
            raise ConfigError(
                f"last({self.column!r}, n={self.n!r}): n must be at least 1", hint="n is a whole number", field="n"
            )

    @property
    def window_micros(self) -> int | None:
        """The window in microseconds; None for all time."""
        return None if self.window is None else duration(self.window)

    @property
    def is_list(self) -> bool:
        """Whether a value is a list, which a model can't read."""
        return self.kind == "last"

    def dtype(self, column: Field | None) -> str:
        """The type of a value (of the list's elements for `last`), as in a schema."""
        if self.kind == "count" or column is None:
            return "int64"
        if self.kind == "mean":
            return "float64"
        if self.kind == "sum":
            return "int64" if column.dtype.startswith("int") else "float64"
        return column.dtype

    def check(self, column: Field | None) -> None:
        """Raise a `ConfigError` if the feature can't be computed from that column."""
        if self.kind in _OF_NUMBERS and column is not None and not column.is_number:
            raise ConfigError(
                f"{self.kind}({column.name!r}) needs a column of numbers, and it is {column.dtype}",
                hint="use latest, last or count",
                field=column.name,
            )

    @property
    def empty(self) -> Any:
        """The value for an entity without any event: nothing was counted, and nothing else is known."""
        return {"count": 0, "last": []}.get(self.kind)

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        return asdict(self)


def latest(column: str) -> Feature:
    """The value of the newest event (a missing value included: it says that the value is gone)."""
    return Feature("latest", column)


def count(*, window: str | None = None) -> Feature:
    """How many events there are."""
    return Feature("count", None, window)


def sum(column: str, *, window: str | None = None) -> Feature:  # noqa: A001
    """The sum of the values that aren't missing; missing when there are none."""
    return Feature("sum", column, window)


def mean(column: str, *, window: str | None = None) -> Feature:
    """The mean of the values that aren't missing; missing when there are none."""
    return Feature("mean", column, window)


def min(column: str, *, window: str | None = None) -> Feature:  # noqa: A001
    """The smallest value; missing when there are none."""
    return Feature("min", column, window)


def max(column: str, *, window: str | None = None) -> Feature:  # noqa: A001
    """The largest value; missing when there are none."""
    return Feature("max", column, window)


def last(column: str, *, n: int, window: str | None = None) -> Feature:
    """The newest `n` values that aren't missing, the newest first; fewer when there are fewer."""
    return Feature("last", column, window, n)
