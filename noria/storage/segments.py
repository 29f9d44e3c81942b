"""Segments: the files of one partition of the embedded event log.

A segment is named after its first offset and holds batches, one after the other: a header, the lengths as columns, the
bytes. A batch is there if it is whole and its checksum is right; what is left of a write that was cut off by a crash
or a full disk is never seen by readers, and the next writer cuts it off.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from noria.core import IntegrityError

_HEADER = struct.Struct("<4sIQqQqIIQQ")
"""Magic, CRC-32 of all that follows it, first offset, time, producer, sequence, events, flags, key and value bytes."""
_MAGIC = b"NEV1"
_CHECKED = 8  # magic and checksum are not part of what is checked
HAS_KEYS = 1
NO_PRODUCER = 0
MAX_BATCH = 1 << 30
SUFFIX = ".events"


@dataclass(frozen=True)
class Batch:
    """Where a batch lies in its segment, and what its header says."""

    position: int
    size: int
    offset: int
    time: int
    producer: int
    sequence: int
    count: int
    flags: int
    key_bytes: int

    @property
    def end(self) -> int:
        """Where the next batch begins."""
        return self.position + self.size

    @property
    def next_offset(self) -> int:
        """The offset after its last event."""
        return self.offset + self.count


def encode(
    values: Sequence[bytes],
    keys: Sequence[bytes | None] | None,
    offset: int,
    time: int,
    producer: int,
    sequence: int,
) -> bytes:
    """A batch as bytes."""
    sizes = np.fromiter(map(len, values), np.uint32, len(values))
    parts, key_bytes, flags = [sizes.tobytes()], 0, 0
    if keys is not None and any(key is not None for key in keys):
        present = [key or b"" for key in keys]
        lengths = np.fromiter((-1 if key is None else len(key) for key in keys), np.int32, len(keys))
        joined = b"".join(present)
        parts += [lengths.tobytes(), joined]
        key_bytes, flags = len(joined), HAS_KEYS
    body = b"".join((*parts, *values))
    data_bytes = int(sizes.sum(dtype=np.uint64))
    head = _HEADER.pack(_MAGIC, 0, offset, time, producer, sequence, len(values), flags, key_bytes, data_bytes)
    checksum = zlib.crc32(body, zlib.crc32(head[_CHECKED:]))
    return _MAGIC + struct.pack("<I", checksum) + head[_CHECKED:] + body


def read_header(file: int, position: int) -> Batch | None:
    """The batch at a position, by its header alone; None if there is no whole header."""
    head = os.pread(file, _HEADER.size, position)
    if len(head) < _HEADER.size or not head.startswith(_MAGIC):
        return None
    _, _, offset, time, producer, sequence, count, flags, key_bytes, data_bytes = _HEADER.unpack(head)
    columns = count * (8 if flags & HAS_KEYS else 4)
    size = _HEADER.size + columns + key_bytes + data_bytes
    if size > 2 * MAX_BATCH:
        return None
    return Batch(position, size, offset, time, producer, sequence, count, flags, key_bytes)


def read_body(file: int, batch: Batch) -> bytes | None:
    """All bytes of a batch; None if they are not all there or not right."""
    data = os.pread(file, batch.size, batch.position)
    if len(data) < batch.size:
        return None
    (checksum,) = struct.unpack_from("<I", data, 4)
    return data if zlib.crc32(memoryview(data)[_CHECKED:]) == checksum else None


def is_unfinished(file: int, batch: Batch) -> bool:
    """Whether a batch that isn't right is what a crash left at the end; if a good one follows, it is damage."""
    after = read_header(file, batch.end)
    return after is None or after.offset != batch.next_offset or read_body(file, after) is None


def decode(batch: Batch, data: bytes, skip: int, limit: int) -> tuple[list[bytes | None], list[bytes]]:
    """Keys and values of a batch's events, without the first `skip`, at most `limit`."""
    at = _HEADER.size
    ends = np.cumsum(np.frombuffer(data, np.uint32, batch.count, at), dtype=np.int64)
    at += 4 * batch.count
    stop = min(batch.count, skip + limit)
    keys: list[bytes | None] = [None] * (stop - skip)
    if batch.flags & HAS_KEYS:
        lengths = np.frombuffer(data, np.int32, batch.count, at)
        at += 4 * batch.count
        found = _slices(data, at, np.cumsum(np.maximum(lengths, 0), dtype=np.int64), skip, stop)
        keys = [key if there else None for key, there in zip(found, (lengths[skip:stop] >= 0).tolist(), strict=True)]
        at += batch.key_bytes
    return keys, _slices(data, at, ends, skip, stop)


def _slices(data: bytes, start: int, ends: NDArray[np.int64], skip: int, stop: int) -> list[bytes]:
    bounds = (np.concatenate(([0], ends))[skip : stop + 1] + start).tolist()
    return [data[a:b] for a, b in pairwise(bounds)]


def batches(file: int, position: int = 0) -> Iterator[Batch]:
    """The batches from a position on, by their headers, as far as the file reaches."""
    size = os.fstat(file).st_size
    while (batch := read_header(file, position)) is not None and batch.end <= size:
        yield batch
        position = batch.end


def segment_files(folder: Path) -> list[tuple[int, Path]]:
    """The segments of a partition by their first offset, the oldest first."""
    names = [path.name for path in folder.iterdir() if path.name.endswith(SUFFIX)]
    return sorted((int(name.removesuffix(SUFFIX)), folder / name) for name in names)


def segment_file(folder: Path, offset: int) -> Path:
    """The segment that begins with an offset."""
    return folder / f"{offset:020d}{SUFFIX}"


def damaged(file: Path, position: int) -> IntegrityError:
    """What to say of a batch in the middle of a log whose bytes are not those that were written."""
    return IntegrityError(
        f"the event log is damaged: {file}, byte {position}",
        hint="restore the file from a backup; events before it can still be read",
    )


def write_all(file: int, data: bytes, position: int) -> None:
    """Write at a position; what could be written of it is taken back if not all can."""
    view, at = memoryview(data), position
    try:
        while view:
            written = os.pwrite(file, view, at)
            if written == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            view, at = view[written:], at + written
    except OSError:
        os.ftruncate(file, position)
        raise
