"""What changes online though nothing happens: as time goes on, events leave windows.

With an entity's values stands what becomes of them until its next event: for each window the instants at which an
event leaves it, and the features' values from each of them on. They are answers to the same questions that a training
set asks, so that a reader, who only looks up the last instant that has passed, reads the number that a label at that
instant is given, and needs neither the events nor the code that counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.features.online import NO_WHOLE_NUMBER
from noria.features.timeline import Positions, Timeline
from noria.features.windows import Questions

_encode = msgspec.msgpack.Encoder().encode
_AT_ONCE = 1 << 20
"""Instants that are worked out at a time, for they may be many more than events."""

Answers = Callable[[Questions, Sequence[int]], list[pl.Series]]
"""The values of some features, by their places in the group, for questions."""


def moves(
    line: Timeline, questions: Questions, segments: Sequence[tuple[Sequence[int], Sequence[int]]], answers: Answers
) -> tuple[list[int | None], list[bytes]]:
    """For each question when its values first change, and all later values, packed for `OnlineReader`.

    Args:
        line: the events.
        questions: one for each entity.
        segments: pairs of windows (microseconds) and places of features that change when an event leaves one of those.
        answers: computes features.

    Returns:
        [questions] the first instant at which something changes, None where nothing will; and what then.
    """
    first: list[int | None] = []
    packed: list[bytes] = []
    for part in _parts(line, questions, max((w for windows, _ in segments for w in windows), default=0)):
        columns: list[list[Any]] = []
        starts = np.full(len(part.numbers), np.iinfo(np.int64).max)
        for windows, places in segments:
            owners, instants = _leaving(line, part, windows)
            offsets = np.searchsorted(owners, np.arange(len(part.numbers) + 1))
            some = offsets[1:] > offsets[:-1]
            starts[some] = np.minimum(starts[some], instants[offsets[:-1][some]])
            later = Questions(part.numbers[owners], instants, part.ends[owners])
            values = [_cut(column, offsets) for column in answers(later, places)]
            columns.append(list(map(list, zip(_bytes(instants, offsets), *values, strict=True))))
        never = np.iinfo(np.int64).max
        first += [None if start == never else start for start in starts.tolist()]
        packed += map(_encode, zip(*columns, strict=True))
    return first, packed


def _parts(line: Timeline, questions: Questions, longest: int) -> Iterator[Questions]:
    """Runs of the questions, each with about as many instants as are worked out at once."""
    before = line.before(questions.numbers, questions.at - longest)
    many = np.cumsum(questions.ends - before)
    cuts = np.searchsorted(many, np.arange(_AT_ONCE, int(many[-1]) if len(many) else 0, _AT_ONCE)) + 1
    edges = sorted({0, *cuts.tolist(), len(many)})
    for start, end in pairwise(edges):
        yield Questions(questions.numbers[start:end], questions.at[start:end], questions.ends[start:end])


def _leaving(line: Timeline, questions: Questions, windows: Sequence[int]) -> tuple[Positions, NDArray[np.int64]]:
    """The questions and the instants at which an event leaves one of the windows, by question and time, each once."""
    owners, instants = [], []
    for window in windows:
        starts = np.minimum(line.before(questions.numbers, questions.at - window), questions.ends)
        lengths = questions.ends - starts
        owner = np.repeat(np.arange(len(lengths)), lengths)
        rows = np.arange(len(owner)) + np.repeat(starts - np.cumsum(lengths) + lengths, lengths)
        owners.append(owner)
        # An event at τ is in [t - window, t) up to t = τ + window.
        instants.append(line.times[rows] + window + 1)
    owner, instant = np.concatenate(owners), np.concatenate(instants)
    if len(windows) > 1:
        order = np.lexsort((instant, owner))
        owner, instant = owner[order], instant[order]
    new = np.ones(len(owner), dtype=bool)
    new[1:] = (owner[1:] != owner[:-1]) | (instant[1:] != instant[:-1])
    return owner[new], instant[new]


def _cut(column: pl.Series, offsets: Positions) -> list[Any]:
    """A column cut at offsets: numbers as bytes, other values as lists."""
    if column.dtype.is_float():
        return _bytes(column.cast(pl.Float64).fill_null(float("nan")).to_numpy(), offsets)
    if column.dtype.is_integer():
        whole = column.cast(pl.Int64)
        if not (whole == NO_WHOLE_NUMBER).any():
            return _bytes(whole.fill_null(NO_WHOLE_NUMBER).to_numpy(), offsets)
    values = column.to_list()
    return [values[start:end] for start, end in zip(offsets.tolist(), offsets[1:].tolist(), strict=False)]


def _bytes(values: NDArray[Any], offsets: Positions) -> list[bytes]:
    data, places = values.tobytes(), (offsets * 8).tolist()
    return [data[start:end] for start, end in pairwise(places)]
