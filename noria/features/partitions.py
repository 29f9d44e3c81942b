"""Partitions: the rows of a part of the entities at a time, for what doesn't fit into memory.

An entity's values depend on its own rows only, so that entities can be worked on in any groups with the same result, to
the bit. Rows are read once, in their order. They are sorted by partition some at a time, into files that have no name
and go with the process, however it ends. A partition is then a slice of each file: the rows of its entities, in their
order.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import StorageError
from noria.features.events import Events
from noria.features.group import FeatureGroup

IN_MEMORY = 3 << 30
"""Bytes that a join may take in memory, on a machine with four times as much; what takes more goes by partitions."""
PARTITION = 256 << 20
"""Bytes that a partition takes while it is worked on, of ordinary entities: one entity's rows can't be divided."""
BATCH = 1 << 18
"""Rows that are read at a time."""
MOST = 4096
"""The most partitions; with more, each file's slices are short."""
_BUFFER = 64 << 20
"""Bytes that are sorted at once."""
_BLOCK = 1 << 16
"""Rows of a file that are read at once."""
_SAMPLE = 10_000
_FIXED, _FOR_EACH = 48, 24
"""Bytes per row for the timeline, and for each feature that adds something up."""

Hashes = NDArray[np.uint64]


def size(events: Events, groups: Sequence[FeatureGroup]) -> int:
    """About how many bytes it takes to work on all rows at once.

    Raises:
        StorageError: the table can't be read.
    """
    rows, first = events.count(), events.first(_SAMPLE)
    width = first.estimated_size() / max(len(first), 1) + _FIXED
    features = [feature for group in groups for feature in group.features.values()]
    width += _FOR_EACH * len([f for f in features if f.kind not in ("latest", "derived") or f.where is not None])
    return int(rows * width)


def fits(bytes_: int) -> bool:
    """Whether so much may be worked on at once: at most `IN_MEMORY`, and a quarter of what this process may use."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))  # of a container
    return bytes_ <= min(IN_MEMORY, memory // 4)


def partitions_for(bytes_: int) -> int:
    """How many partitions so much is divided into."""
    return min(max(-(-bytes_ // PARTITION), 1), MOST)


def hash_ids(ids: pl.DataFrame, types: pl.Schema) -> Hashes:
    """A number for each entity; what doesn't fit into the entity's type is nobody, and has any number.

    Numbers are the same in all processes with one version of Polars.
    """
    made = np.zeros(len(ids), np.uint64)
    for name, dtype in types.items():
        column = ids[name] if ids.schema[name] == dtype else ids[name].cast(dtype, strict=False)
        made = made * np.uint64(0x9E3779B97F4A7C15) ^ column.hash(0).to_numpy()
    return made


def partition_of(hashes: Hashes, count: int) -> NDArray[np.uint16]:
    """The partition of each."""
    high: Hashes = hashes >> np.uint64(32)
    return ((high * np.uint64(count)) >> np.uint64(32)).astype(np.uint16)


class Wanted:
    """Most of the entities that aren't asked for can be told from those that are: a Bloom filter (Bloom, 1970) of one
    hash, 8 bits or more for each."""

    def __init__(self, hashes: Hashes) -> None:
        bits = min(max(8 * len(hashes), 1 << 10), 1 << 27)
        self._mask = np.uint64((1 << (bits - 1).bit_length()) - 1)
        self._there = np.zeros(int(self._mask) + 1, np.bool_)
        self._there[hashes & self._mask] = True

    def __call__(self, hashes: Hashes) -> NDArray[np.bool_]:
        """True for all that are asked for, and for a few others."""
        found: NDArray[np.bool_] = self._there[hashes & self._mask]
        return found


@dataclass(frozen=True)
class Partitions:
    """Rows by partition.

    Attributes:
        rows: how many there are.
        runs: frames, or where they lie, sorted by partition, with where each partition begins in them.
    """

    count: int
    rows: int
    schema: pl.Schema
    runs: tuple[tuple[pl.DataFrame | Path, NDArray[np.int64]], ...]

    def read(self, number: int) -> pl.DataFrame:
        """A partition's rows, in the order in which they came."""
        slices = [pl.DataFrame(schema=self.schema)]
        for run, starts in self.runs:
            first, length = int(starts[number]), int(starts[number + 1] - starts[number])
            if length:
                rows = run.lazy() if isinstance(run, pl.DataFrame) else pl.scan_ipc(run)
                slices.append(rows.slice(first, length).collect())
        return pl.concat(slices, rechunk=True)


@contextmanager
def partitioned(
    frames: Iterable[pl.DataFrame],
    types: pl.Schema,
    count: int,
    folder: Path,
    *,
    schema: pl.Schema,
    wanted: Wanted | None = None,
    only: NDArray[np.bool_] | None = None,
    ids: Callable[[pl.DataFrame], pl.DataFrame] | None = None,
) -> Iterator[Partitions]:
    """Divide rows into partitions by entity, for as long as the block lasts.

    Args:
        frames: the rows, some at a time.
        types: the entity's columns with their types.
        count: of the partitions.
        folder: where rows are put aside that are too many for memory.
        schema: of the frames.
        wanted: which entities are asked for; rows of most others are left out.
        only: [count] the partitions that are asked for; others stay empty.
        ids: the entities of such a frame, where they aren't written as the events' are.

    Raises:
        StorageError: the disk is full.
    """
    with ExitStack() as files:
        runs: list[tuple[pl.DataFrame | Path, NDArray[np.int64]]] = []
        waiting: list[tuple[pl.DataFrame, NDArray[np.uint16]]] = []
        held = rows = 0
        for frame in frames:
            hashes = hash_ids(frame if ids is None else ids(frame), types)
            numbers = partition_of(hashes, count)
            keep = None if wanted is None else wanted(hashes)
            if only is not None:
                keep = only[numbers] if keep is None else keep & only[numbers]
            if keep is not None and not keep.all():
                frame, numbers = frame.filter(pl.Series(keep)), numbers[keep]
            if held and held + frame.estimated_size() > _BUFFER:
                sorted_, starts = _sorted(waiting, count)
                runs.append((_put_aside(sorted_, folder, files), starts))
                waiting, held = [], 0
            waiting.append((frame, numbers))
            held += int(frame.estimated_size())
            rows += len(frame)
        if waiting:
            runs.append(_sorted(waiting, count))
        waiting.clear()
        yield Partitions(count, rows, schema, tuple(runs))


def _sorted(
    waiting: Sequence[tuple[pl.DataFrame, NDArray[np.uint16]]], count: int
) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    numbers = np.concatenate([part for _, part in waiting])
    starts = np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=count))])
    order = np.argsort(numbers, kind="stable")
    return pl.concat([frame for frame, _ in waiting], rechunk=True)[order], starts


def _put_aside(frame: pl.DataFrame, folder: Path, files: ExitStack) -> Path:
    """A file without a name that has the rows; it is gone when it is closed, and when the process is killed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file: Any = files.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115 (it is one)
        place = Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        frame.write_ipc(place, compression="uncompressed", record_batch_size=_BLOCK)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StorageError(
            f"rows can't be put aside in {folder}: {error}", hint="is the disk full? nothing was written"
        ) from error
    return place
