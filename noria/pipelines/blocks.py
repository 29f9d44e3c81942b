"""Blocks: rows in pieces of a fixed order, read as often as needed, so that no work has to hold them all.

One primitive does it all: `map` calls a function with each block and returns what it returned, in order. Fitting is
built on it (sums per block, then added up in order), and so is spreading work out: a block may live in memory, in a
file or on another machine. Where the blocks are cut depends on the input alone, so that results don't depend on who
worked on which block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import polars as pl

T = TypeVar("T")


class Blocks(Protocol):
    """Rows in pieces of a fixed order."""

    @property
    def schema(self) -> pl.Schema:
        """The columns, the same in every block."""
        ...

    def map(self, work: Callable[[pl.DataFrame, int], T]) -> list[T]:
        """`work(block, number)` for each block, counted from 0; the results in order.

        The function must be picklable by cloudpickle, and what it returns should be small.
        """
        ...

    def then(self, step: FittedBlockStep) -> Blocks:
        """The blocks as a step that was fitted to them transforms them; these blocks are not used any more."""
        ...


class FittedBlockStep(Protocol):
    """What `Applied` needs of a fitted step."""

    def apply_to_fit(self, frame: pl.DataFrame, block: int) -> pl.DataFrame:
        """Transform the rows of the block with that number, of those that the step was fitted to."""
        ...


@dataclass(frozen=True)
class FrameBlocks:
    """Blocks in memory."""

    frames: Sequence[pl.DataFrame]

    @property
    def schema(self) -> pl.Schema:
        return self.frames[0].schema

    def map(self, work: Callable[[pl.DataFrame, int], T]) -> list[T]:
        return [work(frame, number) for number, frame in enumerate(self.frames)]

    def then(self, step: FittedBlockStep) -> Blocks:
        return FrameBlocks([step.apply_to_fit(frame, number) for number, frame in enumerate(self.frames)])


@dataclass(frozen=True)
class Applied:
    """Blocks as steps that were fitted to them transform them."""

    blocks: Blocks
    steps: tuple[FittedBlockStep, ...]

    @property
    def schema(self) -> pl.Schema:
        return _apply(self.steps, pl.DataFrame(schema=self.blocks.schema), 0).schema

    def map(self, work: Callable[[pl.DataFrame, int], T]) -> list[T]:
        return self.blocks.map(partial(_apply_then, self.steps, work))

    def then(self, step: FittedBlockStep) -> Blocks:
        return Applied(self.blocks, (*self.steps, step))


def _apply(steps: Sequence[FittedBlockStep], frame: pl.DataFrame, block: int) -> pl.DataFrame:
    for step in steps:
        frame = step.apply_to_fit(frame, block)
    return frame


def _apply_then(
    steps: Sequence[FittedBlockStep], work: Callable[[pl.DataFrame, int], Any], frame: pl.DataFrame, block: int
) -> Any:
    return work(_apply(steps, frame, block), block)
