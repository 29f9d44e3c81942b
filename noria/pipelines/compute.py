"""Compute: where the pieces of a batch are worked on. Here: one after the other, by Polars' threads."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import polars as pl

from noria.core import StorageError
from noria.pipelines.blocks import Blocks, FittedBlockStep

S = TypeVar("S")
T = TypeVar("T")
Item = TypeVar("Item")

IN_MEMORY = 256 << 20
"""Rows up to this size stay in memory; more go to files."""


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


class LocalCompute:
    """This process. What doesn't fit `IN_MEMORY` goes to Arrow files in `folder`, which is emptied first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._left = IN_MEMORY
        self._kept: list[pl.DataFrame | _OnDisk] = []

    def each(self, work: Callable[[Item], tuple[S, pl.DataFrame | None]], items: Iterable[Item]) -> Iterator[S]:
        for item in items:
            said, frame = work(item)
            if frame is not None:
                self._keep(frame)
            yield said

    def _keep(self, frame: pl.DataFrame) -> None:
        self._left -= int(frame.estimated_size())
        if self._left >= 0:
            self._kept.append(frame)
            return
        file = self._folder / f"{len(self._kept):08d}.arrow"
        try:
            frame.write_ipc(file, compression="uncompressed")
        except (OSError, pl.exceptions.PolarsError) as error:
            raise StorageError(
                f"rows can't be put aside in {self._folder}: {error}", hint="is the disk full? nothing was written"
            ) from error
        self._kept.append(_OnDisk(file))

    def blocks(self, schema: pl.Schema) -> Blocks:
        return _KeptBlocks(schema, self._kept)

    def __enter__(self) -> LocalCompute:
        shutil.rmtree(self._folder, ignore_errors=True)  # of a run that was killed
        self._folder.mkdir(parents=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._kept = []
        shutil.rmtree(self._folder, ignore_errors=True)


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

    def map(self, work: Callable[[pl.DataFrame, int], T]) -> list[T]:
        return [work(_read(kept, number), number) for number, kept in enumerate(self.kept)]

    def then(self, step: FittedBlockStep) -> Blocks:
        # What is in memory is transformed once and in place; what is in files each time that it is read, which costs
        # less than writing it again.
        for number, kept in enumerate(self.kept):
            if isinstance(kept, pl.DataFrame):
                self.kept[number] = step.apply_to_fit(kept, number)
            else:
                self.kept[number] = _OnDisk(kept.file, (*kept.steps, step))
        return _KeptBlocks(step.apply_to_fit(pl.DataFrame(schema=self.schema), -1).schema, self.kept)


def _read(kept: pl.DataFrame | _OnDisk, number: int) -> pl.DataFrame:
    return kept if isinstance(kept, pl.DataFrame) else kept.read(number)
