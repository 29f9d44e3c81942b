"""What can go wrong with a database, in our words: what, where, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from noria.core import ConfigError, DataError, NoriaError, NotFoundError, StorageError, allowed
from noria.pipelines.sql.url import masked, without_secrets

Kind = Literal["down", "login", "database", "table", "query", "writes", "rights", "values", "lost", "file"]

_LONGEST = 400

_HINTS: dict[Kind, tuple[Callable[..., NoriaError], str, str]] = {
    "down": (StorageError, "can't be reached", "is it up, and are host and port right?"),
    "login": (ConfigError, "doesn't let us in", "are the user's name and password right?"),
    "database": (NotFoundError, "has no such database", "is the name at the end of the URL right?"),
    "table": (NotFoundError, "has no such table", "is the name right?"),
    "query": (DataError, "refuses the query", "one SELECT, or a table's name"),
    "writes": (ConfigError, "is only read here", "one SELECT that changes nothing, or a table's name"),
    "rights": (ConfigError, "denies this user the right to read", "GRANT SELECT to the user on what is read"),
    "values": (DataError, "has a value that can't be read", "leave the value out in the query, or cast it to text"),
    "lost": (StorageError, "was lost while its rows were read", "nothing is half done: run it again"),
    "file": (StorageError, "can't be opened", "is it whole, and does no other program have it locked?"),
}


class Failure(Exception):  # noqa: N818 (it never leaves the room: reading.py turns it into a NoriaError)
    """What a driver reported, sorted by what the user can do about it.

    Attributes:
        kind: what went wrong.
        text: the database's own words.
    """

    def __init__(self, kind: Kind, text: str) -> None:
        super().__init__(kind)
        self.kind: Kind = kind
        self.text = text


def to_noria(failure: Failure, url: str, query: str, tables: Sequence[str], table: str | None) -> NoriaError:
    """The error that the user sees; neither it nor its cause has the password."""
    make, what, hint = _HINTS[failure.kind]
    said = " ".join(without_secrets(failure.text, url).split())
    said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}…"
    asked = f" (query: {_short(query)})" if failure.kind in ("table", "query", "writes", "rights", "values") else ""
    if failure.kind == "table" and tables:
        hint = allowed(tables, _nearest_form(table, tables))
    field = "query" if asked else "url"
    return make(f"the database {masked(url)} {what}: {said}{asked}", hint=hint, field=field)


def _nearest_form(table: str | None, tables: Sequence[str]) -> str | None:
    """`Shop.Orders` is compared as it is, unless no table has a schema."""
    if table is None or any("." in name for name in tables):
        return table
    return table.rpartition(".")[2]


def _short(query: str) -> str:
    line = " ".join(query.split())
    return line if len(line) <= 120 else f"{line[:119]}…"
