"""Folds: the parts of the training rows on which a search judges what it has fitted on others of them.

Where rows have times, each fold learns from the past and is judged on what came next (rolling origin). Else rows of one
entity stay together, and classes are spread evenly. Steps are fitted inside each fold, to its learning rows alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError, DataError
from noria.pipelines import apply_steps, fit_steps
from noria.training.families import Family
from noria.training.inputs import Matrix, to_matrix
from noria.training.learner import Lesson, fitted_steps, rows_of

Mask = NDArray[np.bool_]

ORIGIN = 0.5
"""The share of the rows, by time, from which the first fold learns."""


@dataclass(frozen=True)
class Fold:
    """What one fit learns from and what judges it.

    Attributes:
        x: [rows, columns] after the steps.
        y: [rows]
        weights: [rows]; None when all rows count alike.
        judging_x: [other rows, columns]
        judging_y: [other rows]
    """

    x: Matrix
    y: NDArray[Any]
    weights: NDArray[np.float64] | None
    judging_x: Matrix
    judging_y: NDArray[Any]


def masks(lesson: Lesson, count: int, *, is_regression: bool) -> list[tuple[Mask, Mask]]:
    """The learning and the judging rows of each fold.

    Raises:
        ConfigError: there are too few rows, instants or entities for so many folds.
    """
    if count < 1:
        raise ConfigError(f"folds={count} is too few", hint="allowed: 1 (one part judges) and more", field="folds")
    if lesson.times is not None:
        found = _rolling(lesson.times, count)
    else:
        found = _spread(lesson, max(count, 5) if count == 1 else count, is_regression)[:count]
    if not is_regression:
        found = [(learn, judge) for learn, judge in found if len(np.unique(lesson.target[learn])) > 1]
    if not found:
        raise ConfigError(
            f"{len(lesson)} training rows are too few for {count} folds in which both parts have rows of two values",
            hint="allow fewer folds, or give more rows",
            field="folds",
        )
    return found


def _rolling(times: NDArray[np.int64], count: int) -> list[tuple[Mask, Mask]]:
    """Rows of one instant are never divided, so that the parts are only nearly equal."""
    ordered = np.sort(times)
    places = np.linspace(len(times) * ORIGIN, len(times), count + 1)[:-1]
    cuts = np.unique(ordered[np.minimum(np.ceil(places).astype(int), len(times) - 1)])
    ends = [*cuts[1:], ordered[-1] + 1]
    pairs = [(times < cut, (times >= cut) & (times < end)) for cut, end in zip(cuts, ends, strict=True)]
    return [(learn, judge) for learn, judge in pairs if learn.any() and judge.any()]


def _spread(lesson: Lesson, count: int, is_regression: bool) -> list[tuple[Mask, Mask]]:
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    rows, groups, options = len(lesson), lesson.entities, {"shuffle": True, "random_state": lesson.seed}
    if rows < count or (groups is not None and len(np.unique(groups)) < count):
        return []
    smallest = 0 if is_regression else int(np.unique(lesson.target, return_counts=True)[1].min())
    if groups is None:
        made = StratifiedKFold(count, **options) if smallest >= count else KFold(count, **options)
    else:
        made = StratifiedGroupKFold(count, **options) if smallest >= count else GroupKFold(count, **options)
    found = []
    for learn, judge in made.split(np.zeros((rows, 1)), lesson.target, groups):
        learning, judging = np.zeros(rows, np.bool_), np.zeros(rows, np.bool_)
        learning[learn], judging[judge] = True, True
        found.append((learning, judging))
    return found


def fold_of(lesson: Lesson, learning: Mask, judging: Mask, family: Family | None = None) -> Fold:
    """The rows of a fold as its model sees them: the steps are fitted to the learning rows.

    Args:
        lesson: all rows, and the steps.
        learning, judging: which of them.
        family: whose automatic steps to add; None: there is nothing to add.

    Raises:
        DataError: a step drops rows.
    """
    part = lesson.part(learning)
    if family is None:
        steps, frame = fit_steps(lesson.steps, part.inputs)
        fitted = tuple(steps)
    else:
        fitted, frame = fitted_steps(family, part)
    judged = apply_steps(fitted, rows_of(lesson.inputs, judging))
    if len(frame) != len(part) or len(judged) != judging.sum():
        raise DataError("steps of a model may not drop rows", hint="drop them with steps of the source instead")
    return Fold(to_matrix(frame), part.target, part.weights, to_matrix(judged), lesson.target[judging])
