"""Learners: how a model comes of examples, by one fit or by more: a search, several workers.

A pipeline's `model` is an estimator or a `Learner`. Both see the training part alone, so that the rows that judge a
model can't have helped to make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import DataError, NoProgress, Progress, Schema
from noria.pipelines import fit_steps
from noria.training.estimator import Estimator, fresh_copy
from noria.training.inputs import ModelInputs, to_matrix

if TYPE_CHECKING:
    from noria.pipelines import Step


@dataclass(frozen=True)
class Lesson:
    """What a model may learn from.

    Attributes:
        inputs: the columns of `schema`, before the steps.
        target: [rows] what to predict.
        schema: the model's inputs.
        steps: transformations that are yet to be fitted.
        metric: the name of the metric that decides which model is better.
        seed: of everything random.
        times: [rows] event times in microseconds; None without a time column.
        entities: [rows] whose each row is; None when the rows belong to nobody.
        weights: [rows] how much each row counts; None when all count alike.
        directory: a folder for what should survive a kill; the next run of the same definition on the same data finds
            it again. None: keep nothing.
        progress: told how far it is.
        name: of the model, for what is shown.
        compute: who works where work can be shared, as in the settings: `local`, `ray`, or `ray://HOST:PORT`.
    """

    inputs: pl.DataFrame
    target: NDArray[Any]
    schema: Schema
    steps: Sequence[Step] = ()
    metric: str = ""
    seed: int = 0
    times: NDArray[np.int64] | None = None
    entities: NDArray[Any] | None = None
    weights: NDArray[np.float64] | None = None
    directory: Path | None = None
    progress: Progress = field(default_factory=NoProgress)
    name: str = ""
    compute: str = "local"

    def __len__(self) -> int:
        return len(self.target)

    def part(self, mask: NDArray[np.bool_]) -> Lesson:
        """The same with some of the rows."""
        return replace(
            self,
            inputs=self.inputs.filter(pl.Series(mask)),
            target=self.target[mask],
            times=None if self.times is None else self.times[mask],
            entities=None if self.entities is None else self.entities[mask],
            weights=None if self.weights is None else self.weights[mask],
        )


@dataclass(frozen=True)
class Learned:
    """A model with what it reads.

    Attributes:
        estimator: fitted.
        inputs: its columns and the fitted steps.
        notes: how it came about, as plain JSON data: kept with the version.
    """

    estimator: Estimator
    inputs: ModelInputs
    notes: dict[str, Any] = field(default_factory=dict)


@runtime_checkable
class Learner(Protocol):
    """Makes a model in its own way."""

    def learn(self, lesson: Lesson) -> Learned:
        """Learn from all rows of the lesson."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        ...


def learn(model: Estimator | Learner, lesson: Lesson) -> Learned:
    """A model fitted to all rows of the lesson."""
    return model.learn(lesson) if isinstance(model, Learner) else fit_once(model, lesson)


def fit_once(model: Estimator, lesson: Lesson) -> Learned:
    """The steps, then a fresh copy of the estimator, fitted to all rows of the lesson.

    Raises:
        DataError: a step drops rows.
    """
    fitted_steps, frame = fit_steps(lesson.steps, lesson.inputs)
    if len(frame) != len(lesson):
        raise DataError("steps of a model may not drop rows", hint="drop them with steps of the source instead")
    estimator = fresh_copy(model)
    estimator.fit(to_matrix(frame), lesson.target)
    return Learned(estimator, ModelInputs(lesson.schema, tuple(fitted_steps)))
