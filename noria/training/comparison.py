"""Two models' answers to the same rows, compared: bit for bit, and by metrics within their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from noria.registry import ModelVersion
from noria.registry.difference import metric_values
from noria.training.answers import Answers
from noria.training.bootstrap import Rows, intervals, metric_tasks
from noria.training.metrics import METRICS, judge

Answered: TypeAlias = tuple[NDArray[Any], NDArray[np.float64] | None]
"""Predictions, [n], and the positive class's probabilities, [n], where there are."""


@dataclass(frozen=True)
class Refound:
    """A metric: as registered, as it is now, and the 95 % interval of the registered one, if that is of any use."""

    then: float
    now: float
    low: float | None = None
    high: float | None = None

    @property
    def same(self) -> bool:
        """Whether it is the registered one, but for the last digits."""
        both = math.isnan(self.now) and math.isnan(self.then)
        return both or math.isclose(self.now, self.then, rel_tol=1e-9, abs_tol=1e-12)

    @property
    def fits(self) -> bool:
        """Whether chance explains the difference."""
        if self.low is None or self.high is None:
            return self.now == self.then
        return self.low <= self.now <= self.high or self.now == self.then


def difference(then: Answered, now: Answered) -> tuple[int, float]:
    """How many rows have another answer, bit for bit, and by how much at most; every NaN is the same."""
    other, largest = np.zeros(len(then[0]), np.bool_), 0.0
    for before, after in zip(then, now, strict=True):
        if before is None or after is None:
            other |= (before is None) != (after is None)
            continue
        if before.dtype.kind == "f" and after.dtype.kind == "f":
            different = (before.view(np.int64) != after.view(np.int64)) & ~(np.isnan(before) & np.isnan(after))
            gaps = np.abs(before - after)[different]
            largest = max(largest, float(np.nanmax(gaps, initial=0.0)) if len(gaps) else 0.0)
        else:
            different = before != after
        other |= different
    return int(other.sum()), largest


def refound(
    version: ModelVersion, truth: NDArray[Any], test: NDArray[np.bool_], then: Answered, now: Answered
) -> dict[str, Refound]:
    """The version's metrics on its test rows, from its answers then and now.

    The interval is the one that the version keeps, or a bootstrap's where answers differ and it keeps none.
    """
    truth = truth[test]
    (old, old_scores), (new, new_scores) = (
        (predicted[test], None if scores is None else scores[test]) for predicted, scores in (then, now)
    )
    kept: Mapping[str, Any] = (version.parameters.get("evaluation") or {}).get("metrics") or {}
    same = difference((old, old_scores), (new, new_scores))[0] == 0
    drawn = Rows(len(truth), seed=int(version.parameters.get("seed", 0)))
    found = {}
    for name, registered in metric_values(version).items():
        if name not in METRICS or (METRICS[name].needs_scores and (old_scores is None or new_scores is None)):
            continue
        low, high = (kept.get(name, {}).get(end) for end in ("low", "high"))
        if (low is None or high is None) and not same:
            ((interval,), _) = intervals(metric_tasks([name], Answers.of(truth, old, old_scores)), drawn)
            low, high = interval.low, interval.high
        found[name] = Refound(float(registered), float(judge((name,), truth, new, new_scores)[name]), low, high)
    return found
