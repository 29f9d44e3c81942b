"""Tables: the offline rows, versioned, so that what a model was trained on can be read again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import polars as pl

Mode = Literal["append", "overwrite"]


class Table(Protocol):
    """A versioned table of columns."""

    @property
    def name(self) -> str:
        """Unique within its store."""
        ...

    def version(self) -> int | None:
        """The newest version, or None when nothing was ever written."""
        ...

    def write(self, frame: pl.DataFrame, *, run_id: str, mode: Mode = "append") -> int:
        """Commit the rows atomically and return the version that holds them.

        Writing twice under one `run_id` writes once: the second call returns the first one's version.
        """
        ...

    def scan(self, version: int | None = None) -> pl.LazyFrame:
        """The rows of a version (the newest by default), read when they are needed.

        Raises:
            NotFoundError: there is no such table or version.
        """
        ...

    def read(self, version: int | None = None, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """The rows of a version, in memory."""
        ...
