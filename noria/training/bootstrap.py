"""Confidence intervals of metrics by the bootstrap: the same rows drawn again and again, with replacement.

What is drawn are units: all rows of an entity together where rows share entities, since they aren't independent, else
single rows. A draw is the vector of how often each row was drawn, and a prepared metric turns many such vectors into
values, so that nothing is sorted or copied anew. Intervals are percentiles of the draws.

Of more than `MOST_ROWS` rows, so many are drawn from a random part of the units, and the interval is shrunk by the root
of the part's share: what doubles the rows divides the spread by √2 (Bickel and Sakov 2008, "On the choice of m in the m
out of n bootstrap").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from noria.training.answers import Answers
from noria.training.fast.kernels import kernel
from noria.training.metrics import METRICS, Metric

MOST_ROWS = 250_000
RESAMPLES = 1_000
FEWEST_RESAMPLES = 200
LEVEL = 0.95
_WORK = 40_000_000
"""Rows that are drawn in all, where `RESAMPLES` would be more and `FEWEST_RESAMPLES` aren't."""
_AT_ONCE = 100_000
_Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % interval; the ends are None where it can't be told."""

    value: float
    low: float | None
    high: float | None

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON data; the ends with six digits."""
        return {"value": self.value, "low": _rounded(self.low), "high": _rounded(self.high)}


@dataclass(frozen=True)
class Rows:
    """The rows that judge.

    Attributes:
        units: [rows] the number of the unit that each row belongs to, from 0 on; None when each is its own.
        seed: of what is drawn.
    """

    count: int
    units: NDArray[np.int64] | None = None
    seed: int = 0

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """The same for some rows; the units are numbered anew."""
        units = None if self.units is None else np.unique(self.units[rows], return_inverse=True)[1]
        return Rows(len(rows), units, self.seed)

    @property
    def drawn(self) -> int:
        """How many units there are."""
        return self.count if self.units is None else int(self.units.max(initial=-1)) + 1


@dataclass(frozen=True)
class Task:
    """A metric of answers."""

    metric: Metric
    answers: Answers


def intervals(
    tasks: Sequence[Task],
    rows: Rows,
    *,
    minus: Sequence[tuple[int, int]] = (),
    most_rows: int = MOST_ROWS,
    most: int = RESAMPLES,
) -> tuple[list[Interval], list[Interval]]:
    """The values of metrics, all from the same draws, and the differences of some pairs of them.

    Args:
        tasks: what to compute.
        rows: how the rows are drawn.
        minus: pairs of places in `tasks`: of which the difference is wanted.
        most_rows: of more rows, a part is drawn.
        most: so many draws at most.
    """
    values = _values(tasks)
    part, scale = _part(rows, most_rows)
    centres = values
    if part is not None:
        rows, tasks = rows.take(part), [Task(one.metric, one.answers.take(part)) for one in tasks]
        centres = _values(tasks)
    draws = _draws(tasks, rows, min(most, max(FEWEST_RESAMPLES, _WORK // max(1, rows.count))))
    units = rows.drawn / scale**2
    biased = [one.metric.biased for one in tasks]
    found = [
        _interval(values[at], centres[at], draws[:, at], scale, biased[at], one.metric.within, units)
        for at, one in enumerate(tasks)
    ]
    differences = [
        _interval(values[a] - values[b], centres[a] - centres[b], draws[:, a] - draws[:, b], scale, biased[a])
        for a, b in minus
    ]
    return found, differences


def _values(tasks: Sequence[Task]) -> _Floats:
    """[tasks] each metric of all its rows."""
    return np.array([one.metric.value(one.answers) for one in tasks])


def _part(rows: Rows, most_rows: int) -> tuple[NDArray[np.int64] | None, float]:
    """The rows of a random part of the units, or None for all; and by what an interval of theirs is too wide."""
    if rows.count <= most_rows:
        return None, 1.0
    random = np.random.default_rng(rows.seed)
    units = rows.drawn
    some = max(2, round(units * most_rows / rows.count))
    chosen = np.zeros(units, np.bool_)
    chosen[random.choice(units, some, replace=False, shuffle=False)] = True
    mask = chosen if rows.units is None else chosen[rows.units]
    return np.flatnonzero(mask), float(np.sqrt(some / units))


def _draws(tasks: Sequence[Task], rows: Rows, resamples: int) -> _Floats:
    """[resamples, tasks] the values of resamples."""
    random = np.random.default_rng(rows.seed)
    prepared = [one.metric.prepare(one.answers) for one in tasks]
    draw = drawer(rows)
    made = np.empty((resamples, len(tasks)))
    step = max(1, _AT_ONCE // max(1, rows.count))
    for start in range(0, resamples, step):
        weights = draw(random, min(step, resamples - start))
        for at, one in enumerate(prepared):
            made[start : start + step, at] = one(weights)
    return made


def drawer(rows: Rows) -> Callable[[np.random.Generator, int], _Floats]:
    """A function that draws sets of weights, [sets, rows]; each call writes over what the last one gave."""
    units, order = rows.drawn, rows.units
    made = np.empty((0, units))

    def draw(random: np.random.Generator, sets: int) -> _Floats:
        nonlocal made
        if len(made) != sets:
            made = np.empty((sets, units))
        _count(made, random.integers(0, 2**63, sets, dtype=np.uint64))
        return made if order is None else made[:, order]

    return draw


@kernel
def _count(made: Any, seeds: Any) -> None:
    """How often each unit is drawn, in as many draws as there are units (SplitMix64, Lemire's product)."""
    units = np.uint64(made.shape[1])
    for b in range(made.shape[0]):
        made[b] = 0.0
        state = seeds[b]
        for _ in range(made.shape[1]):
            state += np.uint64(0x9E3779B97F4A7C15)
            mixed = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            mixed = (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32)
            made[b, (mixed * units) >> np.uint64(32)] += 1.0


def _interval(
    value: float,
    centre: float,
    draws: _Floats,
    scale: float,
    is_biased: bool,
    within: tuple[float, float] = (-np.inf, np.inf),
    units: float = np.inf,
) -> Interval:
    """Percentiles of the draws, moved and scaled to where the value is.

    Where a share is 0 or 1 in all draws, nothing was seen of the other side, which doesn't mean that there is nothing:
    the end is then set by the rule of three (Hanley and Lippman-Hand 1983), 3 / units away.
    """
    known = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not np.isfinite(centre) or len(known) < 0.5 * len(draws):
        return Interval(float(value), None, None)
    centre = float(known.mean()) if is_biased else centre
    tail = 100 * (1 - LEVEL) / 2
    low, high = (value + (float(end) - centre) * scale for end in np.percentile(known, [tail, 100 - tail]))
    low, high = float(max(within[0], min(low, value))), float(min(within[1], max(high, value)))
    if within == (0.0, 1.0) and low == high:
        low, high = (max(0.0, low - 3 / units), high) if value >= 1 else (low, min(1.0, high + 3 / units))
    return Interval(float(value), low, high)


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def metric_tasks(names: Sequence[str], answers: Answers) -> list[Task]:
    """Metrics by name, of the same answers."""
    return [Task(METRICS[name], answers) for name in names]
