"""MySQL's values: from the protocol's text to columns, and a cursor's value back into a query.

What isn't a value of the column's type, such as `0000-00-00`, makes the block's column text: no row is lost or turned
into another.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import polars as pl

FLOAT = 4
_INTEGERS = (1, 2, 3, 8, 9, 13)
_DOUBLE, _TIMESTAMP, _DATETIME, _DATE, _BIT = 5, 7, 12, 10, 16
_DECIMALS = (0, 246)
_MINUTE = "%Y-%m-%d %H:%M:%S%.f"


def column(name: str, kind: int, values: Sequence[Any]) -> pl.Series:
    """A column of the type that the protocol's number means.

    >>> column("n", 8, ["18446744073709551615", None])[0]
    18446744073709551615
    >>> column("day", 10, ["2024-02-29", "0000-00-00"]).to_list()
    ['2024-02-29', '0000-00-00']
    """
    if kind == _BIT:
        bits = [None if value is None else int.from_bytes(value, "big") for value in values]
        return pl.Series(name, bits, pl.UInt64)
    if any(type(value) is bytes for value in values):
        return pl.Series(name, values, pl.Binary)
    text = pl.Series(name, values, pl.String)
    for made in _attempts(kind, text):
        if made.null_count() == text.null_count():
            return made
    return text


def _attempts(kind: int, text: pl.Series) -> list[pl.Series]:
    if kind in _INTEGERS:
        signed = text.cast(pl.Int64, strict=False)
        return [signed] if signed.null_count() == text.null_count() else [text.cast(pl.UInt64, strict=False)]
    if kind in (FLOAT, _DOUBLE):
        return [text.cast(pl.Float64, strict=False)]
    if kind == _DATE:
        return [text.str.to_date("%Y-%m-%d", strict=False)]
    if kind in (_TIMESTAMP, _DATETIME):
        made = text.str.to_datetime(_MINUTE, strict=False, time_unit="us")
        return [made.dt.replace_time_zone("UTC") if kind == _TIMESTAMP else made]
    return []


def bindable(value: Any, kind: int) -> Any:
    """A cursor's value, perhaps after a round trip through JSON, as what its column is compared with exactly.

    >>> bindable("2024-01-01T01:00:00+01:00", 12)
    datetime.datetime(2024, 1, 1, 0, 0)
    >>> bindable("12345678901234567890.5", 246)
    Decimal('12345678901234567890.5')
    """
    with contextlib.suppress(ValueError, ArithmeticError):
        if kind in _DECIMALS:
            return Decimal(str(value))
        if kind in _INTEGERS:
            return int(value)
        if kind in (_TIMESTAMP, _DATETIME):
            stamp = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
            return stamp.astimezone(UTC).replace(tzinfo=None) if stamp.tzinfo else stamp
    return value.isoformat() if isinstance(value, date) else value
