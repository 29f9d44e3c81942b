"""Digests of frames: two frames have one digest if, and only if, they have the same rows, bit for bit.

A digest says nothing of how a frame lies in memory: in how many chunks, with what under its missing values, or in which
table it was. So that it can be computed again by others, this is what is hashed, with SHA-256:

- of a column: its type as Polars writes it, the number of rows, and its values as below;
- of values: one bit for each (1: known), packed from the highest bit on, then the known ones, in little-endian order:
  numbers and instants as they are (every NaN as the same one), Booleans as a byte each, texts and bytes as their
  lengths (64 bits) and then all their bytes, lists as their lengths and then their elements as values, structures as
  their fields;
- of a frame: each column's name, length first, and its digest.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import polars as pl

from noria.core import DataError

_ROWS = 1 << 19
"""Rows that are copied at a time; a multiple of 8, for bits are packed."""


def digest_columns(frame: pl.DataFrame) -> dict[str, str]:
    """Each column's digest, by its name.

    Raises:
        DataError: a column holds Python's objects.
    """
    return {column.name: _digest(column) for column in frame.iter_columns()}


def digest(frame: pl.DataFrame) -> str:
    """The frame's digest, 64 hex digits.

    Raises:
        DataError: a column holds Python's objects.
    """
    return digest_of(digest_columns(frame))


def digest_of(columns: dict[str, str]) -> str:
    """A frame's digest from those of its columns, in their order.

    >>> digest_of({"n": digest(pl.DataFrame({"n": [1]}))}) == digest_of({})
    False
    """
    whole = hashlib.sha256()
    for name, found in columns.items():
        text = name.encode()
        whole.update(len(text).to_bytes(8, "little") + text + bytes.fromhex(found))
    return whole.hexdigest()


def _digest(column: pl.Series) -> str:
    made = hashlib.sha256(f"{column.dtype!r}\0{len(column)}\0".encode())
    _add(made, column)
    return made.hexdigest()


def _add(made: Any, values: pl.Series) -> None:
    known = values.is_not_null()
    for rows in _slices(known):
        made.update(np.packbits(rows.to_numpy()).tobytes())
    if not known.all():
        values = values.filter(known)
    dtype = values.dtype
    if isinstance(dtype, (pl.Categorical, pl.Enum, pl.Decimal)):
        values, dtype = values.cast(pl.String), pl.String()
    if dtype in (pl.String, pl.Binary):
        for rows in _slices(values):
            made.update((rows.str.len_bytes() if dtype == pl.String else rows.bin.size()).cast(pl.UInt64).to_numpy())
        for rows in _slices(values):
            texts = rows.to_list()
            made.update("".join(texts).encode() if dtype == pl.String else b"".join(texts))
    elif isinstance(dtype, (pl.List, pl.Array)):
        lists = values.arr.to_list() if isinstance(dtype, pl.Array) else values
        lengths = lists.list.len()
        made.update(lengths.cast(pl.UInt64).to_numpy())
        _add(made, lists.filter(lengths > 0).explode())
    elif isinstance(dtype, pl.Struct):
        for field in values.struct.fields:
            _add(made, values.struct.field(field))
    elif dtype == pl.Null:
        pass
    elif dtype == pl.Boolean or dtype.is_numeric() or dtype.is_temporal():
        for rows in _slices(values):
            made.update(_plain(rows))
    else:
        raise DataError(f"column {values.name!r} is {dtype}, which has no digest", hint="cast it, or leave it out")


def _plain(values: pl.Series) -> Any:
    if values.dtype.is_float() and (strange := values.is_nan()).any():
        values = values.set(strange, float("nan"))  # an operation's NaN has another sign on another processor
    found = (values.cast(pl.UInt8) if values.dtype == pl.Boolean else values.to_physical()).to_numpy()
    return np.ascontiguousarray(found.astype(found.dtype.newbyteorder("<"), copy=False))


def _slices(values: pl.Series) -> list[pl.Series]:
    return [values.slice(start, _ROWS) for start in range(0, len(values), _ROWS)]
