"""What the sides of the features' benchmark share: it needs NumPy and Polars only."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

USERS_READ = {1: 5_000, 100: 1_000}
"""How many entities a read asks for, and how many reads of that size are timed."""


def timed(work: Callable[[], Any], repeats: int) -> tuple[list[float], Any]:
    """The seconds of each call (the first one is not warm), and what the last one made."""
    seconds, made = [], None
    for _ in range(repeats + 1):
        made = None  # what the last call made must not count twice in the memory's peak
        began = time.perf_counter()
        made = work()
        seconds.append(time.perf_counter() - began)
    return seconds, made


def percentiles(ways: Mapping[str, tuple[Callable[[Any], Any], list[Any]]]) -> dict[str, list[float]]:
    """The median and the 99th percentile of each way's calls in microseconds, the ways taking turns."""
    found: dict[str, list[int]] = {name: [] for name in ways}
    for call, questions in ways.values():
        for question in questions[:100]:
            call(question)
    turns = 5
    for turn in range(turns):
        for name, (call, questions) in ways.items():
            size = len(questions) // turns
            for question in questions[turn * size : (turn + 1) * size]:
                began = time.perf_counter_ns()
                call(question)
                found[name].append(time.perf_counter_ns() - began)
    return {name: (np.percentile(times, [50, 99]) / 1000).tolist() for name, times in found.items()}


def check(made: pl.DataFrame) -> list[float]:
    """Numbers by which two training sets can be told apart, whatever the order of their rows."""
    weight = pl.col("when").dt.timestamp("us") % 97
    sums = [(pl.col(name).cast(pl.Float64) * weight).sum().alias(name) for name in ("f0", "f3", "f19")]
    return list(made.select(*sums, pl.col("f7").count().alias("known")).row(0))


def check_windows(made: pl.DataFrame) -> list[float]:
    """The same for the aggregates."""
    weight = pl.col("when").dt.timestamp("us") % 97
    names = ("count7", "sum30", "mean90", "sum")
    sums = [(pl.col(name).cast(pl.Float64).fill_nan(None) * weight).sum() for name in names]
    return list(made.select(*sums, (pl.col("last").list.sum() * weight).sum()).row(0))
