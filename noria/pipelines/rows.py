"""What a piece of an input holds: rows as columns, and what should have been a row but can't be read as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl


@dataclass(frozen=True)
class BrokenRow:
    """A record that can't be read as a row: its number in the piece (from 1), why, its text."""

    position: int
    reason: str
    text: str

    @property
    def rule(self) -> str:
        """The reason without what is this row's own, for counting."""
        return self.reason.partition(":")[0]


@dataclass(frozen=True)
class Rows:
    """Rows as columns: those of the schema, as text or in a type that the reader was sure of.

    Attributes:
        frame: the rows that can be read.
        positions: their numbers in the piece; None when nothing is broken, so that they are 1, 2, 3, ….
        broken: the others.
        extra: names of columns that the schema doesn't name.
        text: gives the same rows as they are written, where `frame` isn't that already.
    """

    frame: pl.DataFrame
    positions: list[int] | None = None
    broken: tuple[BrokenRow, ...] = ()
    extra: tuple[str, ...] = ()
    text: Callable[[], pl.DataFrame] | None = None

    @property
    def count(self) -> int:
        """All rows, the broken ones included."""
        return len(self.frame) + len(self.broken)
