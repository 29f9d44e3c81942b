"""`Query`: a source's rows in a database, from where the last load ended."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Generator
from contextlib import closing
from datetime import date, datetime
from math import isfinite
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from noria.pipelines.convert import python_values
from noria.pipelines.extract import PIECE_ROWS, Input
from noria.pipelines.sql.reading import SqlQuery, newest, read_sql
from noria.pipelines.sql.url import masked


class Query:
    """One reading of a query.

    With a cursor column, rows from the last one's value on are read, and those with that very value that were read
    before are left out: rows that came later with the same value are not lost.

    Args:
        url: of the database.
        query: a `SELECT`, or a table's name.
        cursor: a column that never shrinks.
        root: the project's folder.
        last: `state()` of the load before, if its value isn't None; None to read everything.
    """

    def __init__(self, url: str, query: str, cursor: str | None, root: Path, last: Any) -> None:
        self._query, self._cursor, self._root = SqlQuery(url, query, cursor), cursor, root
        self._last = last or {"value": None, "seen": []}
        self._value: Any = self._last["value"]
        self._seen: list[str] = list(self._last["seen"])
        shown = " ".join(query.split())
        shown = shown if len(shown) < 60 else f"{shown[:57]}…"
        self.input = Input(f"{masked(url)} {shown}", "frames", "", 0, "", frames=self._frames)

    def identity(self) -> str:
        """Changes when there are new rows: the cursor's greatest value; without a cursor always another."""
        return secrets.token_hex(8) if self._cursor is None else str(newest(self._query, self._root))

    def is_done(self) -> bool:
        """Whether there is nothing that the last load hasn't read."""
        if self._cursor is None or self._value is None:
            return False
        left = Counter(self._last["seen"])
        with closing(read_sql(self._query, after=self._value, block_rows=1_000, root=self._root)) as frames:
            return all(self._unread(frame, left).is_empty() for frame in frames)

    def state(self) -> dict[str, Any]:
        """Where the cursor stands now, and which rows have that value; None where there is nothing to read on from."""
        return {"value": self._value, "seen": self._seen}

    def _frames(self) -> Generator[pl.DataFrame]:
        after = self._value if self._cursor is not None else None
        left = Counter(self._last["seen"])
        with closing(read_sql(self._query, after=after, block_rows=PIECE_ROWS, root=self._root)) as frames:
            for frame in frames:
                unread = self._unread(frame, left)
                self._remember(unread)
                yield unread

    def _unread(self, frame: pl.DataFrame, left: Counter[str]) -> pl.DataFrame:
        """Without the rows that the last load had read: they have its last value, and each is left out once."""
        if self._cursor is None or not left.total() or frame.is_empty():
            return frame
        last = _text(self._last["value"])
        same = [n for n, value in enumerate(python_values(frame[self._cursor])) if _text(value) == last]
        keep = [True] * len(frame)
        for number, digest in zip(same, _digests(frame[same]), strict=True):
            if left[digest]:
                left[digest] -= 1
                keep[number] = False
        return frame if all(keep) else frame.filter(pl.Series(keep))

    def _remember(self, frame: pl.DataFrame) -> None:
        """The last value of rows in the cursor's order (not the greatest: the database may order otherwise than we)."""
        if self._cursor is None:
            return
        values = frame[self._cursor]
        keys = values.to_physical()
        if isinstance(values.dtype, pl.Datetime) and values.dtype.time_unit == "ns":
            keys = keys // 1_000  # as Python and the state have it: rows that differ in less have one value
        known = keys.is_not_null().arg_true()
        if known.is_empty():
            return
        last = int(known[-1])
        mine = _digests(frame.filter(keys == keys[last]))
        value = _kept(values[last : last + 1])
        self._seen = [*self._seen, *mine] if value == self._value else mine
        self._value = value


def _kept(value: pl.Series) -> Any:
    """A cursor's value as JSON has it; None for one that it can't have, so that the next load reads all rows."""
    plain = python_values(value)[0]
    if isinstance(plain, (date, datetime)):
        return plain.isoformat()
    # Infinity and NaN, and the `infinity` of dates and instants, which comes as a number.
    lost = isinstance(value.dtype, (pl.Date, pl.Datetime)) or (isinstance(plain, float) and not isfinite(plain))
    return None if lost else plain


def _text(value: Any) -> str | None:
    """A value as text: a column may come as text in one block and typed in another."""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if value is None else str(value).replace("T", " ", 1) if _is_instant(value) else str(value)


def _is_instant(value: Any) -> bool:
    return isinstance(value, str) and value[10:11] == "T" and value[4:5] == "-"


def _digests(frame: pl.DataFrame) -> list[str]:
    rows = zip(*map(python_values, frame.iter_columns()), strict=True)
    encoded = (msgspec.json.encode([_text(value) for value in row]) for row in rows)
    return [hashlib.blake2b(row, digest_size=8).hexdigest() for row in encoded]
