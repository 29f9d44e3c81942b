"""The text of queries: what a user wrote, inside the parts that select exact types and start at the cursor.

The user's text always stands on lines of its own between parentheses: a statement that isn't a `SELECT` is refused by
the database itself, and a comment at its end comments nothing else away.
"""

from __future__ import annotations

import re

from noria.core import ConfigError
from noria.pipelines.sql.session import Dialect

_PART = r'(?:[^\W\d][\w$]*|"(?:[^"]|"")+"|`(?:[^`]|``)+`)'
_TABLE = re.compile(rf"{_PART}(?:\.{_PART}){{0,2}}")


def table_of(query: str) -> str | None:
    """The table's name, without quotation marks, if the query is nothing else."""
    found = _TABLE.fullmatch(query.strip())
    return ".".join(_parts(query)) if found else None


def rows_of(dialect: Dialect, query: str) -> str:
    """The query as a `SELECT`."""
    if table_of(query) is not None:
        return f"SELECT * FROM {'.'.join(map(dialect.quoted, _parts(query)))}"
    text = query.strip().rstrip(";").rstrip()
    if not text:
        raise ConfigError("the query is empty", hint="a SELECT, or a table's name", field="query")
    return text


def typed(rows: str) -> str:
    """A query that has the columns of the rows, and no rows."""
    return f"SELECT * FROM (\n{rows}\n) AS noria_rows LIMIT 0"


def after_first(dialect: Dialect, rows: str, columns: dict[str, str], cursor: str | None, is_later: bool) -> str:
    """The rows in the order of the cursor, from the bound value on if there is one."""
    text = _select(dialect, rows, columns)
    if cursor is None:
        return text
    name = f"noria_rows.{dialect.quoted(cursor)}"
    where = f"\nWHERE {name} >= {dialect.after.format(type=columns[cursor])}" if is_later else ""
    return f"{text}{where}\nORDER BY {name}"


def newest_first(dialect: Dialect, rows: str, columns: dict[str, str], cursor: str) -> str:
    """The cursor's greatest value; an index serves this better than `max`, which not every type has."""
    name = f"noria_rows.{dialect.quoted(cursor)}"
    return f"{_select(dialect, rows, columns)}\nWHERE {name} IS NOT NULL\nORDER BY {name} DESC LIMIT 1"


def _select(dialect: Dialect, rows: str, columns: dict[str, str]) -> str:
    chosen = ", ".join(dialect.column(name, kind) for name, kind in columns.items())
    return f"SELECT {chosen} FROM (\n{rows}\n) AS noria_rows"


def _parts(name: str) -> list[str]:
    parts = re.findall(_PART, name.strip())
    return [part[1:-1].replace(part[0] * 2, part[0]) if part[0] in '"`' else part for part in parts]
