"""What the reading of SQL asks of each kind of database."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import polars as pl

from noria.core import ConfigError

CONNECT_SECONDS = 10
"""How long a database may take to let us in."""


@dataclass(frozen=True)
class Dialect:
    """Where the kinds of SQL differ.

    Attributes:
        quote: what stands around a name.
        exact: a value as an expression that arrives exactly, by its column's type: `{}` for a type that does so as it
            is, a cast for others.
        default: the same for all types that `exact` doesn't name.
        after: what stands for the cursor's value, `{type}` being the column's type.
    """

    quote: str
    exact: dict[str, str]
    default: str
    after: str

    def quoted(self, name: str) -> str:
        """A name as an identifier, whatever characters it has."""
        return self.quote + name.replace(self.quote, self.quote * 2) + self.quote

    def column(self, name: str, kind: str) -> str:
        """The expression that reads a column of that type."""
        form, quoted = self.exact.get(kind, self.default), self.quoted(name)
        return quoted if form == "{}" else f"{form.format(quoted)} AS {quoted}"


class Session(Protocol):
    """An open connection that can read and not write; raises `Failure`."""

    @property
    def dialect(self) -> Dialect: ...

    def columns(self, rows: str) -> list[tuple[str, str]]:
        """The names and types of a `SELECT`'s columns, without running it."""
        ...

    def frames(
        self, select: str, columns: dict[str, str], cursor: str | None, after: Any, block_rows: int
    ) -> Generator[pl.DataFrame]:
        """The answer in blocks, at least one; `after` is bound where the dialect's `after` stands in the text."""
        ...

    def tables(self) -> list[str]:
        """The names of all tables and views."""
        ...


class Database(Protocol):
    """One database at a URL; nothing is connected before a session is opened."""

    def session(self) -> AbstractContextManager[Session]: ...


def refuse_bytes(cursor: str) -> NoReturn:
    """Bytes have no order that all databases share, and no form in which a load could keep them.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"the cursor {cursor!r} has bytes in it, and can't be read on from",
        hint="name a column of numbers, text or times, or leave cursor= out: then each run reads all rows",
        field="cursor",
    )


class BrokenStreamError(Exception):
    """An Arrow stream ended with an error, of which only the words are known."""


def arrow_frames(stream: Any) -> Iterator[pl.DataFrame]:
    """The batches of an Arrow stream, after an empty one that has the columns."""
    import arro3.core

    reader = arro3.core.RecordBatchReader.from_stream(stream)
    yield pl.DataFrame(arro3.core.Table.from_batches([], schema=reader.schema))
    batches = iter(reader)
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:  # arro3 has no type of its own for what a driver reports
            raise BrokenStreamError(str(error)) from None
        if batch is None:
            return
        yield pl.DataFrame(batch)


def in_blocks(frames: Iterable[pl.DataFrame], block_rows: int) -> Generator[pl.DataFrame]:
    """Frames of any size, the first of which may be empty, joined and cut into blocks of so many rows."""
    waiting: list[pl.DataFrame] = []
    count, nothing = 0, True
    for frame in frames:
        waiting.append(frame)
        count += len(frame)
        if count < block_rows:
            continue
        joined, start = pl.concat(waiting), 0
        while count - start >= block_rows:
            yield joined[start : start + block_rows]
            start, nothing = start + block_rows, False
        waiting, count = [joined[start:]], count - start
    if count or nothing:
        yield pl.concat(waiting)
