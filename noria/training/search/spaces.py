"""Spaces: the values among which a search looks for a parameter's best one.

A search space is a dictionary of them by the parameter's name, or, where some parameters exist only beside others, a
function that draws one after the other:

    def space(trial):
        drawn = {"booster": trial.draw("booster", nr.choice("gbtree", "dart"))}
        if drawn["booster"] == "dart":
            drawn["rate_drop"] = trial.draw("rate_drop", nr.uniform(0.0, 0.5))
        return drawn
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from noria.core import ConfigError


@dataclass(frozen=True)
class Uniform:
    """A number from `low` to `high`; with `log`, its logarithm is what is spread evenly."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, self.log)

    def to_dict(self) -> dict[str, Any]:
        return {"space": "uniform", "low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Integer:
    """A whole number from `low` to `high`, both included; with `log`, its logarithm is spread evenly."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        if type(self.low) is not int or type(self.high) is not int:
            raise ConfigError(
                f"integer({self.low!r}, {self.high!r}) has a limit that is no whole number",
                hint="nr.uniform and nr.log give other numbers",
            )
        _check_range(self.low, self.high, self.log)

    def to_dict(self) -> dict[str, Any]:
        return {"space": "integer", "low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Choice:
    """One of several values, of any kind and without an order."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ConfigError("choice() of nothing", hint='name the values: nr.choice("gini", "entropy")')

    def to_dict(self) -> dict[str, Any]:
        return {"space": "choice", "values": [plain(value) for value in self.values]}


Space: TypeAlias = Uniform | Integer | Choice


class Draws(Protocol):
    """What a function that describes a space is given."""

    def draw(self, name: str, space: Space) -> Any:
        """The value of this trial for the parameter."""
        ...


SearchSpace: TypeAlias = Mapping[str, Space] | Callable[[Draws], Mapping[str, Any]]


def uniform(low: float, high: float) -> Uniform:
    """A number from `low` to `high`."""
    return Uniform(low, high)


def log(low: float, high: float) -> Uniform:
    """A number from `low` to `high`, for what is thought of in powers: a learning rate, a penalty."""
    return Uniform(low, high, log=True)


def integer(low: int, high: int, *, log: bool = False) -> Integer:
    """A whole number from `low` to `high`, both included."""
    return Integer(low, high, log)


def choice(*values: Any) -> Choice:
    """One of the values."""
    return Choice(values)


def check_space(space: SearchSpace) -> None:
    """Refuse a space in which there is nothing to look for.

    Raises:
        ConfigError: it is empty, or has something that is no space.
    """
    if callable(space):
        return
    if not space:
        raise ConfigError(
            "the space to search is empty", hint='name parameters: {"learning_rate": nr.log(0.01, 0.3)}', field="space"
        )
    for name, values in space.items():
        if not isinstance(values, (Uniform, Integer, Choice)):
            raise ConfigError(
                f"the space of {name!r} is {values!r}, which is no space",
                hint="allowed: nr.uniform, nr.log, nr.integer, nr.choice; a fixed value belongs into the estimator",
                field=name,
            )


def draw_all(space: SearchSpace, draws: Draws) -> dict[str, Any]:
    """One trial's parameters."""
    if callable(space):
        return dict(space(draws))
    return {name: draws.draw(name, values) for name, values in space.items()}


def definition(space: SearchSpace) -> dict[str, Any]:
    """The space as plain JSON data; of a function, its text."""
    if not callable(space):
        return {name: values.to_dict() for name, values in space.items()}
    try:
        return {"function": inspect.getsource(space)}
    except (OSError, TypeError):  # typed into an interpreter
        return {"function": getattr(space, "__qualname__", repr(space))}


def plain(value: Any) -> Any:
    """A parameter's value as JSON data."""
    if hasattr(value, "item") and not getattr(value, "shape", ()):
        value = value.item()
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def _check_range(low: float, high: float, log: bool) -> None:
    if not low <= high:
        raise ConfigError(f"a space from {low!r} to {high!r} has nothing in it", hint="write the lower limit first")
    if not float("-inf") < low <= high < float("inf"):
        raise ConfigError(f"a space from {low!r} to {high!r} has no end", hint="write two numbers: nr.uniform(0.5, 1)")
    if log and low <= 0:
        raise ConfigError(
            f"a logarithmic space can't begin at {low!r}", hint="begin above 0, or leave the logarithm out"
        )
