"""Online sinks: what a stream keeps in the online store, exactly once.

A sink remembers with each write how far it has come, in the same transaction. After a crash it is given events again,
and skips those that it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError, allowed, fingerprint, uuid_text
from noria.pipelines.dtypes import polars_type
from noria.storage.online import Mark, OnlineStore, OnlineValue

if TYPE_CHECKING:
    from noria.pipelines.stream import Stream
    from noria.pipelines.stream_sinks import StreamRows

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(dict[str, Any]).decode
_LATEST = b"\0latest/"
"""The key under which `Totals` keeps the newest event time of a partition: no text has a NUL in front."""


def online_key(value: Any, dtype: str = "str") -> bytes:
    """The key of a value of the key column; a UUID's is that of its text in the table, however it is written here."""
    return str((uuid_text(value) if dtype == "uuid" else None) or value).encode()


def _asked(stream: Stream, key: str, values: Sequence[Any]) -> list[bytes]:
    dtype = stream.schema[key].dtype
    return [online_key(value, dtype) for value in values]


def _keys(column: pl.Series) -> list[bytes]:
    return [text.encode() for text in column.cast(pl.String).to_list()]


@dataclass(frozen=True)
class LatestRow:
    """Keeps the newest row of each key, by event time; at equal times the one that came later."""

    key: str

    def verify(self, stream: Stream) -> None:
        """Raise a `ConfigError` if the stream has no such key, or no event time."""
        _verify_key(stream, self.key, "LatestRow")

    def verify_columns(self, stream: Stream, made: Mapping[str, pl.DataType]) -> None:
        """Raise a `ConfigError` if the stream's steps don't leave the columns as the sink needs them."""
        _verify_left(stream, made, "LatestRow", self.key)

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        return {"sink": "LatestRow", "key": self.key}

    def place(self, stream: Stream) -> str:
        """The group in the online store; another one for another definition."""
        return f"{stream.name}/latest/{fingerprint(self.to_dict())[:8]}"

    def since(self, stream: Stream, partition: int) -> int:
        """The oldest event in the log."""
        return 0

    def write(self, store: OnlineStore, stream: Stream, rows: StreamRows, mark: Mark) -> int:
        """Put the batch's rows into the store; returns how many events were late (they lose by their time)."""
        frame = rows.frame.filter(pl.col(self.key).is_not_null())
        newest = frame.sort(str(stream.time), maintain_order=True).unique(self.key, keep="last", maintain_order=True)
        plain = newest.select(_plain(name, dtype) for name, dtype in newest.schema.items())
        times = newest[str(stream.time)].to_physical().to_list()
        values = list(map(_encode, plain.rows(named=True)))
        store.write(self.place(stream), _keys(newest[self.key]), times, values, mark=mark)
        return 0

    def read(self, store: OnlineStore, stream: Stream, keys: Sequence[Any]) -> list[dict[str, Any] | None]:
        """The newest row of each key, None where there is none; instants are microseconds."""
        found = store.read(self.place(stream), _asked(stream, self.key, keys))
        return [None if value is None else _decode(value.value) for value in found]


@dataclass(frozen=True)
class Totals:
    """Keeps for each key how many events there were, and the sums of columns (float64).

    Attributes:
        key: the column.
        sums: columns of numbers; missing values count as 0.
        late: what becomes of events that are late: `apply` (they count), or `skip`.
    """

    key: str
    sums: Sequence[str] = ()
    late: str = "apply"

    def verify(self, stream: Stream) -> None:
        """Raise a `ConfigError` if the stream lacks a column, or `late` is unknown."""
        _verify_key(stream, self.key, "Totals")
        for name in self.sums:
            if not stream.schema[name].is_number:
                raise ConfigError(f"Totals: {name!r} is {stream.schema[name].dtype}, not a number", field=name)
        if self.late not in ("apply", "skip"):
            raise ConfigError(f"Totals: late={self.late!r}", hint=allowed(["apply", "skip"], self.late))

    def verify_columns(self, stream: Stream, made: Mapping[str, pl.DataType]) -> None:
        """Raise a `ConfigError` if the stream's steps don't leave the columns as the sink needs them."""
        _verify_left(stream, made, "Totals", self.key, self.sums)

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        return {"sink": "Totals", "key": self.key, "sums": list(self.sums), "late": self.late}

    def place(self, stream: Stream) -> str:
        """The group in the online store; another one for another definition."""
        return f"{stream.name}/totals/{fingerprint([self.to_dict(), stream.lateness])[:8]}"

    def since(self, stream: Stream, partition: int) -> int:
        """The oldest event in the log."""
        return 0

    def write(self, store: OnlineStore, stream: Stream, rows: StreamRows, mark: Mark) -> int:
        """Add the batch's rows to the totals; returns how many events were late."""
        latest = _LATEST + str(rows.partition).encode()
        (before,) = store.read(self.place(stream), [latest])  # only this partition's owner moves it
        times = rows.frame[str(stream.time)].to_physical().to_numpy()
        newest, late = _lateness(times, before.time if before is not None else None, stream.allowed_lateness)
        frame = rows.frame.filter(pl.Series(~late)) if self.late == "skip" and late.any() else rows.frame
        grouped = (
            frame.filter(pl.col(self.key).is_not_null())
            .group_by(self.key, maintain_order=True)
            .agg(
                pl.len().cast(pl.Int64).alias("__count__"),
                pl.col(str(stream.time)).to_physical().max().alias("__time__"),
                *(pl.col(name).cast(pl.Float64).sum().alias(f"__sum__{name}") for name in self.sums),
            )
        )
        counts = grouped["__count__"].to_numpy()
        sums = grouped.select(f"__sum__{name}" for name in self.sums).to_numpy() if self.sums else None
        event_times = grouped["__time__"].to_numpy()

        def merge(old: list[OnlineValue | None]) -> tuple[Sequence[int], Sequence[bytes]]:
            made = self._packed(old[:-1])
            made["count"] += counts
            if sums is not None:
                made["sums"] += sums
            old_times = np.fromiter((-(2**63) if v is None else v.time for v in old[:-1]), np.int64, len(counts))
            data, size = made.tobytes(), self._type.itemsize
            values = [data[at : at + size] for at in range(0, len(data), size)]
            return [*np.maximum(event_times, old_times).tolist(), newest], [*values, b""]

        store.update(self.place(stream), [*_keys(grouped[self.key]), latest], merge, mark=mark)
        return int(late.sum())

    def read(self, store: OnlineStore, stream: Stream, keys: Sequence[Any]) -> list[dict[str, Any]]:
        """For each key its `count` and sums; zeros where there was no event."""
        found = self._packed(store.read(self.place(stream), _asked(stream, self.key, keys)))
        return [
            {"count": int(row["count"]), **dict(zip(self.sums, row["sums"].tolist(), strict=True))} for row in found
        ]

    @property
    def _type(self) -> np.dtype[Any]:
        return np.dtype([("count", "<i8"), ("sums", "<f8", (len(self.sums),))])

    def _packed(self, values: list[OnlineValue | None]) -> NDArray[Any]:
        empty = bytes(self._type.itemsize)
        return np.frombuffer(b"".join(empty if v is None else v.value for v in values), self._type).copy()


def _lateness(times: NDArray[np.int64], before: int | None, allowed: int) -> tuple[int, NDArray[np.bool_]]:
    """The newest time with these, and which of them were late when they came: independent of where batches are cut."""
    start = -(2**63) + allowed if before is None else before
    running = np.maximum.accumulate(np.concatenate(([start], times)))
    return int(running[-1]), times < running[:-1] - allowed


def _verify_key(stream: Stream, key: str, what: str) -> None:
    _ = stream.schema[key]
    if stream.time is None:
        raise ConfigError(f"{what} of stream {stream.name!r} needs an event time", hint="name it: time=", field="time")


def _verify_left(
    stream: Stream, made: Mapping[str, pl.DataType], what: str, key: str, sums: Sequence[str] = ()
) -> None:
    """The key and the time must be as they come, since keys are asked for and times compared; sums may be scaled."""
    where = f"{what} of stream {stream.name!r}"
    hint = f"after the steps there are: {', '.join(f'{name}: {dtype}' for name, dtype in made.items())}"
    for name in (key, str(stream.time), *sums):
        if name not in made:
            raise ConfigError(f"{where} needs {name!r}, which the steps drop or rename", hint=hint, field=name)
    for name in (key, str(stream.time)):
        dtype = polars_type(stream.schema[name])
        if made[name] != dtype and not (made[name].is_integer() and dtype.is_integer() and name == key):
            raise ConfigError(
                f"{where} needs {name!r} as {dtype}, and the steps make it {made[name]}", hint=hint, field=name
            )
    for name in sums:
        if not made[name].is_numeric():
            raise ConfigError(f"{where} needs {name!r} as a number, and the steps make it {made[name]}", hint=hint)


def _plain(name: str, dtype: pl.DataType) -> pl.Expr:
    return pl.col(name).to_physical() if isinstance(dtype, (pl.Datetime, pl.Date)) else pl.col(name)
