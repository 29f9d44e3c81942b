"""Component: what every part of a system tells about itself, so that the graph is the very wiring that runs."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import msgspec

from noria.core.errors import ConfigError


@runtime_checkable
class Component(Protocol):
    """A named part of a system.

    `to_dict` is the whole definition as plain JSON data: two components with equal dictionaries do the same
    work, so a changed dictionary is what makes a component stale.
    """

    @property
    def name(self) -> str:
        """Unique within a system."""
        ...

    @property
    def kind(self) -> str:
        """`source`, `features`, `training`, `recommender`, …."""
        ...

    @property
    def description(self) -> str:
        """One sentence for people."""
        ...

    @property
    def dependencies(self) -> tuple[str, ...]:
        """The names of the components whose output this one reads."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a component's run produced.

    Attributes:
        version: what those who read this component depend on: when it changes, they are stale.
        rows: how many rows went where (`in`, `out`, `quarantined`, `filtered`, …).
        notes: what a report shows (metrics, the promoted version, …), as plain JSON data.
    """

    version: str
    rows: dict[str, int] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


def fingerprint(value: Any) -> str:
    """A short, stable hash (SHA-256, 16 hex digits) of plain JSON data; the order of keys doesn't matter.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:16]


def check_name(name: str, what: str) -> str:
    """Return a name that is fit for URLs, folders and metric labels.

    Raises:
        ConfigError: when it isn't.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]{0,63}", name):
        raise ConfigError(
            f"{name!r} can't be the name of {'an' if what[0] in 'aeiouAEIOU' else 'a'} {what}",
            hint="use 1 to 64 lower-case letters, digits, '_' or '-', starting with a letter",
            field="name",
        )
    return name
