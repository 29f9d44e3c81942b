"""The contract of a format, and what comes of keeping an estimator in one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


class UnkeepableError(Exception):
    """A format can't hold this estimator; the message completes "it can't be kept, for …"."""


@dataclass(frozen=True)
class Kept:
    """A fitted estimator as files.

    Attributes:
        files: by name.
        spec: `format`, `class`, and `libraries` with their versions, as plain JSON data; `restore` needs it again.
    """

    files: dict[str, bytes]
    spec: dict[str, Any] = field(default_factory=dict)


class Format(Protocol):
    """One way to keep estimators."""

    name: str
    files: tuple[str, ...]
    """The names of its files."""

    def takes(self, estimator: Any) -> bool:
        """Whether it is meant for such an estimator; nothing is imported to tell."""
        ...

    def libraries(self, estimator: Any) -> set[str]:
        """The modules that reading it back needs, beside NumPy."""
        ...

    def dump(self, estimator: Any) -> dict[str, bytes]:
        """The files of a fitted estimator.

        Raises:
            UnkeepableError: something of it has no place there.
        """
        ...

    def load(self, files: Mapping[str, Path]) -> Any:
        """The reverse of `dump`.

        Raises:
            DataError: a file is not what it should be.
        """
        ...


def type_name(value: Any) -> str:
    """`lightgbm.sklearn.LGBMClassifier`."""
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"
