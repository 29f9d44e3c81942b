"""What a stream keeps of each entity between two batches of events: its rows, as far back as they count, in columns.

Rows that count for nothing but totals are folded into those (see `noria.features.continued`); the rest stays as it
came, so that the next batch is computed by the code that computes everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, list[Any] | None, int, list[Any]]).decode
_PLAIN: dict[Any, type] = {
    pl.Int8: np.int8, pl.Int16: np.int16, pl.Int32: np.int32, pl.Int64: np.int64, pl.Float32: np.float32,
    pl.Float64: np.float64, pl.Boolean: np.bool_, pl.Date: np.int32, pl.Datetime: np.int64,
}  # fmt: skip


@dataclass(frozen=True)
class Histories:
    """Of some entities, by number, the rows that are kept.

    Attributes:
        as_of: [entities] the instants of their values, microseconds; the least possible where there is no history.
        totals: [entities] what was folded, None where nothing was.
        rows: all entities' rows, those of one after those of the one before.
        lengths: [entities] how many rows each has.
    """

    as_of: NDArray[np.int64]
    totals: list[list[Any] | None]
    rows: pl.DataFrame
    lengths: NDArray[np.int64]


def unpack(kept: Sequence[bytes | None], schema: Mapping[str, pl.DataType]) -> Histories:
    """The reverse of `pack`; None is an entity without a history."""
    found = [None if each is None else _decode(each) for each in kept]
    as_of = [-(2**63) if each is None else each[0] for each in found]
    lengths = [0 if each is None else each[2] for each in found]
    there = [each[3] for each in found if each is not None]
    columns = [_joined(name, schema[name], [columns[place] for columns in there]) for place, name in enumerate(schema)]
    return Histories(
        np.array(as_of, dtype=np.int64),
        [None if each is None else each[1] for each in found],
        pl.DataFrame(columns),
        np.array(lengths, dtype=np.int64),
    )


def pack(histories: Histories) -> list[bytes]:
    """Each entity's history as bytes."""
    offsets = np.concatenate([[0], np.cumsum(histories.lengths)])
    columns = [_cut(histories.rows[name], offsets) for name in histories.rows.columns]
    parts: Iterable[Any] = zip(*columns, strict=True) if columns else [()] * len(histories.totals)
    heads = zip(histories.as_of.tolist(), histories.totals, histories.lengths.tolist(), strict=True)
    return [_encode((*head, part)) for head, part in zip(heads, parts, strict=True)]


def _cut(column: pl.Series, offsets: NDArray[np.int64]) -> list[Any]:
    """A column's values between offsets: the bytes of numbers, with those of what is missing; else lists."""
    kind = _PLAIN.get(column.dtype.base_type())
    if kind is None:
        plain = column.to_list()
        return [plain[start:end] for start, end in pairwise(offsets.tolist())]
    size = np.dtype(kind).itemsize
    known = column.to_physical().fill_null(value=False if column.dtype == pl.Boolean else 0)
    data = known.to_numpy().astype(kind).tobytes()
    cut = [data[start:end] for start, end in pairwise((offsets * size).tolist())]
    if not column.null_count():
        return cut
    missing = column.is_null().to_numpy().tobytes()
    masks = [missing[start:end] for start, end in pairwise(offsets.tolist())]
    return [(values, mask) if any(mask) else values for values, mask in zip(cut, masks, strict=True)]


def _joined(name: str, dtype: pl.DataType, parts: Sequence[Any]) -> pl.Series:
    kind = _PLAIN.get(dtype.base_type())
    if kind is None:
        return pl.Series(name, list(chain.from_iterable(parts)), dtype)
    plain = [part if isinstance(part, bytes) else part[0] for part in parts]
    values: NDArray[Any] = np.frombuffer(b"".join(plain), kind)
    column = pl.Series(name, values).cast(dtype)
    if any(not isinstance(part, bytes) for part in parts):
        size = np.dtype(kind).itemsize
        masks = [bytes(len(part) // size) if isinstance(part, bytes) else part[1] for part in parts]
        column = column.set(pl.Series(np.frombuffer(b"".join(masks), np.bool_)), None)
    return column
