"""`Query`: a source's rows in a database, from where the last load ended."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from noria.core import DataError
from noria.pipelines.databases import check_cursor, masked, misspelt, open_database
from noria.pipelines.extract import PIECE_ROWS, Input

_TABLE = re.compile(r"[\w$]+(\.[\w$]+)?")


class Query:
    """One reading of a query.

    With a cursor column, rows from the last one's value on are read, and those with that very value that were read
    before are left out: rows that came later with the same value are not lost.

    Args:
        url: of the database.
        query: a `SELECT`, or a table's name.
        cursor: a column that never shrinks.
        root: the project's folder.
        last: `state()` of the load before; None to read everything.
    """

    def __init__(self, url: str, query: str, cursor: str | None, root: Path, last: Any) -> None:
        self._database = open_database(url, root)
        self._table = query if _TABLE.fullmatch(query.strip()) else None
        text = f"SELECT * FROM {self._database.quoted(query.strip())}" if self._table else query.strip().rstrip(";")
        self._query, self._cursor = text, cursor
        self._last = last or {"value": None, "seen": []}
        self._value: Any = self._last["value"]
        self._seen: list[str] = list(self._last["seen"])
        shown = query.strip() if len(query.strip()) < 60 else f"{query.strip()[:57]}…"
        self.input = Input(f"{masked(url)} {' '.join(shown.split())}", "frames", "", 0, "", frames=self._frames)

    def identity(self) -> str:
        """Changes when there are new rows: the cursor's greatest value; without a cursor always another."""
        if self._cursor is None:
            return secrets.token_hex(8)
        return str(self._ask(f"max({self._database.quoted(self._cursor)})"))

    def is_done(self) -> bool:
        """Whether there is nothing that the last load hasn't read."""
        if self._cursor is None or self._value is None:
            return False
        return int(self._ask("count(*)", where=self._where()) or 0) <= len(self._seen)

    def state(self) -> dict[str, Any]:
        """Where the cursor stands now, and which rows have that value."""
        return {"value": self._value, "seen": self._seen}

    def _where(self) -> str:
        if self._value is None or self._cursor is None:
            return ""
        return f" WHERE {self._database.quoted(self._cursor)} >= {self._database.literal(self._value)}"

    def _ask(self, what: str, where: str = "") -> Any:
        text = f"SELECT {what} AS answer FROM ({self._query}) AS asked{where}"
        try:
            return next(self._database.blocks(text, 1))["answer"][0]
        except DataError as error:
            raise misspelt(error, self._database, self._table) if self._table else error from error

    def _frames(self) -> Iterator[pl.DataFrame]:
        text = self._query
        if self._cursor is not None:
            order = f" ORDER BY {self._database.quoted(self._cursor)}"
            text = f"SELECT * FROM ({self._query}) AS asked{self._where()}{order}"
        try:
            for frame in self._database.blocks(text, PIECE_ROWS):
                yield self._new(frame) if self._cursor is not None else frame
        except DataError as error:
            raise misspelt(error, self._database, self._table) if self._table else error from error

    def _new(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows that weren't read before; remembers those that have the newest value."""
        assert self._cursor is not None
        check_cursor(frame, self._cursor)
        before = set(self._last["seen"])
        if before:
            known = frame[self._cursor].map_elements(_plain, return_dtype=pl.Object).to_list() if len(frame) else []
            same = [number for number, value in enumerate(known) if value == self._last["value"]]
            digests = dict(zip(same, _digests(frame[same]), strict=True)) if same else {}
            again = {number for number, digest in digests.items() if digest in before}
            if again:
                frame = frame.filter(~pl.Series([number in again for number in range(len(frame))]))
        values = frame[self._cursor].drop_nulls()
        if len(values):
            newest = values.max()
            plain = _plain(newest)
            mine = _digests(frame.filter(pl.col(self._cursor) == newest))
            self._seen = [*self._seen, *mine] if plain == self._value else mine
            self._value = plain
        return frame


def _plain(value: Any) -> Any:
    """A cursor's value as JSON has it."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=None).isoformat(sep=" ")
    return str(value) if isinstance(value, (date, Decimal)) else value


def _digests(frame: pl.DataFrame) -> list[str]:
    return [
        hashlib.blake2b(msgspec.json.encode(list(row), enc_hook=str), digest_size=8).hexdigest() for row in frame.rows()
    ]
