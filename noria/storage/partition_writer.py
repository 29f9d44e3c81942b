"""The writing end of a partition: one writer at a time, whichever process and thread it is in."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from noria.core import Clock
from noria.storage.segments import (
    NO_PRODUCER,
    batches,
    damaged,
    encode,
    is_unfinished,
    read_body,
    segment_file,
    segment_files,
    write_all,
)

_SNAPSHOT = ".producers"


@dataclass(frozen=True)
class Limits:
    """When a segment is closed and when old ones go.

    Attributes:
        segment_bytes: a segment that has become this large is closed.
        keep_bytes, keep_seconds: closed segments are removed, the oldest first, while there is more than this, and when
            their last event is older; None: never.
    """

    segment_bytes: int = 256 << 20
    keep_bytes: int | None = None
    keep_seconds: float | None = None


class PartitionWriter:
    """Appends to the partition in `folder`. Threads that append at once share the wait for the disk."""

    def __init__(self, folder: Path, limits: Limits, clock: Clock) -> None:
        self._folder = folder
        self._limits = limits
        self._clock = clock
        self._lock, self._sync_lock = threading.Lock(), threading.Lock()
        self._gate = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        self._file = -1
        self._base = -1
        self._end = 0  # of the last whole batch
        self._next = 0
        self._synced = 0
        self._sequences: dict[int, int] = {}

    def append(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None,
        producer: tuple[str, int] | None,
        durable: bool,
    ) -> int:
        """Append a batch; returns how many events were new."""
        name, sequence = NO_PRODUCER, 0
        if producer is not None:
            name, sequence = _producer_id(producer[0]), producer[1]
        with self._lock:
            fcntl.flock(self._gate, fcntl.LOCK_EX)
            try:
                self._catch_up()
                if name and self._sequences.get(name, -1) >= sequence:
                    written = 0
                else:
                    self._write(encode(values, keys, self._next, self._clock.now(), name, sequence), len(values))
                    written = len(values)
                    if name:
                        self._sequences[name] = sequence
                file, base, end = self._file, self._base, self._end
            finally:
                fcntl.flock(self._gate, fcntl.LOCK_UN)
        if durable:
            self._sync(file, base, end)
        return written

    def next_offset(self) -> int:
        """The offset of the next event."""
        with self._lock:
            fcntl.flock(self._gate, fcntl.LOCK_EX)
            try:
                self._catch_up()
                return self._next
            finally:
                fcntl.flock(self._gate, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
            os.close(self._gate)
            self._file = -1

    def _sync(self, file: int, base: int, end: int) -> None:
        with self._sync_lock:
            if base == self._base and self._synced < end:
                upto = self._end
                os.fdatasync(file)
                self._synced = max(self._synced, upto) if base == self._base else 0
            # A closed segment was synced when it was closed.

    def _write(self, data: bytes, count: int) -> None:
        if self._end >= self._limits.segment_bytes:
            self._roll()
        write_all(self._file, data, self._end)
        self._end += len(data)
        self._next += count

    def _catch_up(self) -> None:
        """See what other processes have appended, and cut off what a killed one left unfinished."""
        newest = segment_files(self._folder)[-1:] or [(0, segment_file(self._folder, 0))]
        base, path = newest[0]
        if base != self._base:
            self._open(base, path)
        size = os.fstat(self._file).st_size
        if size == self._end:
            return
        for batch in batches(self._file, self._end):
            if read_body(self._file, batch) is None:
                if not is_unfinished(self._file, batch):
                    raise damaged(segment_file(self._folder, self._base), batch.position)
                break
            self._end, self._next = batch.end, batch.next_offset
            if batch.producer:
                self._sequences[batch.producer] = max(batch.sequence, self._sequences.get(batch.producer, -1))
        if size > self._end:
            self._cut_off(size)

    def _cut_off(self, size: int) -> None:
        """Remove what is no whole batch; it is kept aside, in case that it is damage after all."""
        left = os.pread(self._file, size - self._end, self._end)
        segment_file(self._folder, self._next).with_suffix(".cut").write_bytes(left)
        os.ftruncate(self._file, self._end)

    def _open(self, base: int, path: Path) -> None:
        made = not path.exists()
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if made:
            _sync_folder(self._folder)
        with self._sync_lock:  # nobody waits for the disk by the old file any more: who closes a segment has synced it
            if self._file >= 0:
                os.close(self._file)
            self._file, self._base, self._synced = file, base, 0
        self._end, self._next = 0, base
        snapshot = path.with_suffix(_SNAPSHOT)
        if snapshot.exists():
            known = msgspec.json.decode(snapshot.read_bytes(), type=dict[int, int])
            self._sequences = known
        elif base == 0:
            self._sequences = {}

    def _roll(self) -> None:
        os.fdatasync(self._file)
        path = segment_file(self._folder, self._next)
        snapshot = path.with_suffix(_SNAPSHOT)
        aside = snapshot.with_suffix(".new")
        with aside.open("wb") as stream:
            stream.write(msgspec.json.encode(self._sequences))
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(snapshot)
        self._open(self._next, path)
        self._remove_old()

    def _remove_old(self) -> None:
        files = segment_files(self._folder)
        sizes = {path: path.stat().st_size for _, path in files}
        total = sum(sizes.values())
        for _, path in files[:-1]:
            last = path.stat().st_mtime * 1_000_000
            too_much = self._limits.keep_bytes is not None and total > self._limits.keep_bytes
            too_old = self._limits.keep_seconds is not None and (
                last < self._clock.now() - self._limits.keep_seconds * 1_000_000
            )
            if not (too_much or too_old):
                break
            total -= sizes[path]
            path.with_suffix(_SNAPSHOT).unlink(missing_ok=True)
            path.unlink()


def _producer_id(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") or 1


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
