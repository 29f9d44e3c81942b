"""Tables: the offline rows, versioned, so that what a model was trained on can be read again.

Writing has two halves. `stage` puts rows beside the table, where no reader sees them: as often as needed, by whoever
has some, on other machines too. `commit` makes all that was staged the table's next version at once. With it a *mark*
may be moved: a number with a name, kept in the table itself, that says how far a source or a stream has been loaded.
Rows and mark become visible together or not at all, which is what makes loading again after a crash harmless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import polars as pl

Mode = Literal["append", "overwrite"]


@dataclass(frozen=True)
class Part:
    """Staged rows: a file in the table's folder, its size in bytes and its rows."""

    name: str
    size: int
    rows: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON data."""
        return {"name": self.name, "size": self.size, "rows": self.rows}


@dataclass(frozen=True)
class TableMark:
    """How far something has been loaded: `before` is what the mark must be now (-1: not there yet)."""

    name: str
    before: int
    after: int


class Table(Protocol):
    """A versioned table of columns."""

    @property
    def name(self) -> str:
        """Unique within its store."""
        ...

    @property
    def is_remote(self) -> bool:
        """Whether other machines reach it."""
        ...

    def version(self) -> int | None:
        """The newest version, or None when nothing was ever written."""
        ...

    def version_at(self, instant: int) -> int | None:
        """The version that was the newest at an instant (microseconds), by the clock of the disk or the object store;
        the first one before it was written. None when nothing was ever written."""
        ...

    def write(self, frame: pl.DataFrame, *, run_id: str, mode: Mode = "append") -> int:
        """Commit the rows atomically and return the version that holds them.

        Writing twice under one `run_id` writes once: the second call returns the first one's version.
        """
        ...

    def stage(self, frame: pl.DataFrame, name: str) -> Part:
        """Put rows beside the table, durably and unseen; parts are read in the order of their names.

        Staging again under one name replaces what was staged.
        """
        ...

    def staged_schema(self, part: Part) -> pl.Schema:
        """The columns of a staged part."""
        ...

    def commit(
        self,
        parts: Sequence[Part],
        schema: pl.Schema,
        *,
        mode: Mode,
        marks: Sequence[TableMark] = (),
        version: int | None = None,
    ) -> int:
        """Make the staged parts (none is fine) the table's next version and move the marks; returns the version.

        Args:
            version: what the newest version must be now, for parts that were made of its rows; None for any.

        Raises:
            ConflictError: a mark isn't what it should be, or the version: another process has loaded; nothing was
                changed.
        """
        ...

    def discard(self, prefix: str) -> None:
        """Remove staged parts whose names start so and that no version has: what a killed process left behind."""
        ...

    def mark(self, name: str) -> int:
        """The mark's value in the newest version; -1 where there is none."""
        ...

    def compact(self, *, small: int = 32 << 20) -> int:
        """Join neighbouring parts of fewer than `small` bytes; the rows and their order stay. Returns parts removed."""
        ...

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """The rows of a version (the newest by default), read when they are needed, in the order of their parts.

        Raises:
            NotFoundError: there is no such table or version.
        """
        ...

    def read(self, version: int | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of a version, in memory."""
        ...

    def added(self, since: int, version: int | None = None) -> pl.LazyFrame | None:
        """The rows that came after a version, if none went: None if any rows that it had were replaced or rewritten.

        Raises:
            NotFoundError: there is no such table or version.
        """
        ...
