"""Compute: where the pieces of a batch are worked on. Here: in a few threads of this process."""

from __future__ import annotations

import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import polars as pl

from noria.core import ConfigError, Settings, StorageError
from noria.core.lazy import load_before_threads
from noria.pipelines.blocks import Blocks, FittedBlockStep
from noria.storage.tables import Table

S = TypeVar("S")
T = TypeVar("T")
Item = TypeVar("Item")

IN_MEMORY = 384 << 20
"""Rows up to this size stay in memory; more go to files."""
MOST_WORKERS = 4
"""Each holds a piece or two in memory, and Polars has threads of its own for what is in one."""


class Compute(Protocol):
    """Who works on pieces. Used in a `with` block, at whose end all rows that were kept are forgotten."""

    def each(self, work: Callable[[Item], tuple[S, pl.DataFrame | None]], items: Iterable[Item]) -> Iterator[S]:
        """What `work` says of each item, in order; the rows that it returns are kept as the next block."""
        ...

    def blocks(self, schema: pl.Schema) -> Blocks:
        """All rows that were kept."""
        ...

    def __enter__(self) -> Compute: ...

    def __exit__(self, *_: object) -> None: ...


def open_compute(settings: Settings, folder: Path, table: Table) -> Compute:
    """The one that the settings name.

    Args:
        folder: for what doesn't fit into memory here; it is emptied first.
        table: where the workers stage rows.

    Raises:
        ConfigError: workers on other machines can't reach the table.
        MissingExtraError: Ray isn't installed.
    """
    address = settings.compute
    if address == "local":
        return LocalCompute(folder)
    from noria.pipelines.ray_compute import RayCompute

    if address != "ray" and not table.is_remote:
        raise ConfigError(
            f"compute = {address!r}: other machines can't write to the tables in {settings.root}",
            hint='keep the tables where all machines reach them: storage.tables = "s3://…"',
            field="storage.tables",
        )
    return RayCompute(address)


class LocalCompute:
    """This process: while one thread waits, or does what only one can, others parse and write.

    What doesn't fit `IN_MEMORY` goes to Arrow files in `folder`, which is emptied first.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._left = IN_MEMORY
        self._lock = threading.Lock()
        self._kept: list[pl.DataFrame | _OnDisk] = []
        self._workers = min(MOST_WORKERS, len(os.sched_getaffinity(0)))
        load_before_threads()
        self._pool = ThreadPoolExecutor(self._workers, "noria-batch")

    def each(self, work: Callable[[Item], tuple[S, pl.DataFrame | None]], items: Iterable[Item]) -> Iterator[S]:
        calls = (partial(self._work, work, number, item) for number, item in enumerate(items))
        for said, kept in in_order(self._pool, calls, self._workers + 1):
            if kept is not None:
                self._kept.append(kept)
            yield said

    def _work(
        self, work: Callable[[Item], tuple[S, pl.DataFrame | None]], number: int, item: Item
    ) -> tuple[S, pl.DataFrame | _OnDisk | None]:
        said, frame = work(item)
        return said, None if frame is None else self._keep(frame, number)

    def _keep(self, frame: pl.DataFrame, number: int) -> pl.DataFrame | _OnDisk:
        with self._lock:
            self._left -= int(frame.estimated_size())
            fits = self._left >= 0
        if fits:
            return frame
        file = self._folder / f"{number:08d}.arrow"
        try:
            frame.write_ipc(file, compression="uncompressed")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StorageError(
                f"rows can't be put aside in {self._folder}: {error}", hint="is the disk full? nothing was written"
            ) from error
        return _OnDisk(file)

    def blocks(self, schema: pl.Schema) -> Blocks:
        return _KeptBlocks(schema, self._kept, self._pool)

    def __enter__(self) -> LocalCompute:
        shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
        self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._kept = []
        shutil.rmtree(self._folder, ignore_errors=True)


def in_order(pool: ThreadPoolExecutor, calls: Iterable[Callable[[], T]], ahead: int) -> Iterator[T]:
    """What the calls return, in their order; no more than `ahead` are begun before their turn."""
    begun: deque[Future[T]] = deque()
    try:
        for call in calls:
            begun.append(pool.submit(call))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for left in begun:
            left.cancel()


@dataclass(frozen=True)
class _OnDisk:
    """Rows in a file, and the steps that they have yet to go through when they are read."""

    file: Path
    steps: tuple[FittedBlockStep, ...] = ()

    def read(self, number: int) -> pl.DataFrame:
        frame = pl.read_ipc(self.file)
        for step in self.steps:
            frame = step.apply_to_fit(frame, number)
        return frame


@dataclass(frozen=True)
class _KeptBlocks:
    schema: pl.Schema
    kept: list[pl.DataFrame | _OnDisk]
    pool: ThreadPoolExecutor

    def map(self, work: Callable[[pl.DataFrame, int], T]) -> list[T]:
        return list(self.pool.map(lambda number: work(_read(self.kept[number], number), number), range(len(self.kept))))

    def then(self, step: FittedBlockStep) -> Blocks:
        # What is in memory is transformed once and in place; what is in files each time that it is read, which costs
        # less than writing it again.
        def transform(number: int) -> None:
            kept = self.kept[number]
            if isinstance(kept, pl.DataFrame):
                self.kept[number] = step.apply_to_fit(kept, number)
            else:
                self.kept[number] = _OnDisk(kept.file, (*kept.steps, step))

        list(self.pool.map(transform, range(len(self.kept))))
        return _KeptBlocks(step.apply_to_fit(pl.DataFrame(schema=self.schema), -1).schema, self.kept, self.pool)


def _read(kept: pl.DataFrame | _OnDisk, number: int) -> pl.DataFrame:
    return kept if isinstance(kept, pl.DataFrame) else kept.read(number)
