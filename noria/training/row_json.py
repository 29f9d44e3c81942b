"""Many rows as JSON, read straight into a matrix: no Python object is made for a cell.

A request for hundreds of candidates is tens of thousands of numbers, and to decode them into objects takes longer than
to score them. This reader knows one form only, `{"instances": [{"a": 1.5, …}, …]}` with every input in the same order
in each row, and is never in doubt: what it takes, it reads as the usual decoder would, to the bit; whatever else it
meets (another order, an error, a number in an odd form) it leaves to that decoder.
"""

from __future__ import annotations

import threading
from functools import cache
from types import ModuleType

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.core import Schema

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_READY = threading.Event()


class RowReader:
    """Reads rows of numbers.

    >>> from noria.core import Schema
    >>> _ = compiled()
    >>> rows = RowReader(Schema.of({"a": "int8", "b": "float64?"}))
    >>> rows.read(b'{"instances": [{"a": 1, "b": 0.5}, {"a": -2, "b": null}]}')
    array([[ 1. ,  0.5],
           [-2. ,  nan]])
    """

    def __init__(self, schema: Schema) -> None:
        self._columns = {name: column for column, name in enumerate(schema.names)}
        self._nullable = np.array([field.nullable for field in schema], np.bool_)
        self._limits = np.array([_limit(field.dtype) for field in schema])
        self._kinds = np.array([_kind(field.dtype) for field in schema])

    @staticmethod
    def reads(schema: Schema) -> bool:
        """Whether all columns are numbers."""
        return all(field.is_number for field in schema)

    def read(self, body: bytes) -> NDArray[np.float64] | None:
        """[rows, columns], missing values NaN; None where the usual decoder has to look."""
        if not _READY.is_set():
            _compile_aside()
            return None
        loops = compiled()
        begin = body.find(b"[") + 1
        end = body.find(b"}", begin) + 1  # also right behind a brace within a name: then this is no object
        try:
            first = msgspec.json.decode(body[begin:end])
        except msgspec.DecodeError:
            return None
        if not isinstance(first, dict) or first.keys() != self._columns.keys():
            return None
        keys = [msgspec.json.encode(name) for name in first]
        starts = np.cumsum([0, *map(len, keys)]).astype(np.uint64)
        places = np.array([self._columns[name] for name in first], np.uint64)
        text, key = np.frombuffer(body + b"\0", np.uint8), np.frombuffer(b"".join(keys), np.uint8)
        out = np.empty((loops.braces(text) - 1, len(keys)))
        columns = (key, starts, places, self._nullable, self._kinds, self._limits)
        rows = loops.read(text, np.uint64(begin), *columns, loops.powers_of_five(), out)
        return out if rows == len(out) and body[:begin].translate(None, b" \t\r\n") == b'{"instances":[' else None


@cache
def compiled() -> ModuleType:
    """The loops, ready to run: seconds on a machine where they never ran, some 50 ms on others."""
    from noria.training import row_kernels as loops

    text, one, zero = np.frombuffer(b"\0", np.uint8), np.zeros(1, np.uint64), np.zeros(1, np.int64)
    columns = (text, np.zeros(2, np.uint64), one, np.zeros(1, np.bool_), zero, np.zeros(1))
    loops.braces(text)
    loops.read(text, np.uint64(0), *columns, loops.powers_of_five(), np.empty((1, 1)))
    _READY.set()
    return loops


@cache
def _compile_aside() -> None:
    """Compile while the usual decoder goes on reading."""
    threading.Thread(target=compiled, name="noria-compile", daemon=True).start()


def _kind(dtype: str) -> int:
    """`WHOLE` or `SHORT` of the loops, or 0."""
    return 1 if dtype.startswith("int") else 2 if dtype == "float32" else 0


def _limit(dtype: str) -> float:
    """The largest absolute value; of integers one less than the usual decoder takes."""
    if dtype == "float32":
        return _FLOAT32_MAX
    return np.inf if dtype == "float64" else float(2 ** (int(dtype.removeprefix("int")) - 1) - 1)
