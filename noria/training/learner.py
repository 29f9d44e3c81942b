"""Learners: how a model comes of examples, by one fit or by more: a search, several workers.

A pipeline's `model` is an estimator or a `Learner`. Both see the training part alone, so that the rows that judge a
model can't have helped to make it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import polars as pl
from numpy.typing import NDArray

from noria.core import ConfigError, DataError, NoProgress, Progress, Schema
from noria.pipelines import apply_steps, fit_steps
from noria.pipelines.steps.encode import FittedEncode
from noria.training.estimator import Estimator, fresh_copy
from noria.training.families import Family, automatic_steps, family_of, possible_gaps
from noria.training.fast.predictor import Predictor, predictor_of
from noria.training.fits import Rows, Terms, fit_estimator, stopped_at, wanted_rounds, without_unknown_classes
from noria.training.inputs import ModelInputs, to_arrow, to_columns
from noria.training.splits import RandomSplit, Split

if TYPE_CHECKING:
    from noria.pipelines import FittedStep, Step


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
        split: how a part of the rows is held out where a model has to know when to stop; None: at random.
        early_stopping: after how many rounds without getting better a model stops; None: as the model itself says.
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
    split: Split | None = None
    early_stopping: int | None = None
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
            inputs=rows_of(self.inputs, mask),
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

    @cached_property
    def predictor(self) -> Predictor:
        """What will answer for the estimator on a server: ten times as fast as many libraries, and checked."""
        return predictor_of(self.estimator)


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

    After the lesson's own steps come those that the model's library needs (see `families`). A model that stops early
    learns from a part of the rows, and the others say when.

    Raises:
        ConfigError: the model can't stop early or be weighed, as is asked.
        DataError: a step drops rows, or the model refuses them.
    """
    family = family_of(model)
    rounds = wanted_rounds(model, family, lesson.early_stopping)
    held: Lesson | None = None
    if rounds is not None:
        lesson, held = _held_out(lesson)
    steps, frame = fitted_steps(family, lesson)
    columns, categories = frame.columns, _categories(steps, frame.columns)
    data = to_arrow(frame) if family.reads_arrow else to_columns(frame, family.dtype)
    rows = Rows(data, lesson.target, lesson.weights)
    del frame  # the library gets the memory
    judging = None if held is None else _held_rows(held, steps, family, lesson.target)
    terms = Terms(columns, categories, judging, rounds or 0)
    estimator = fit_estimator(fresh_copy(model), family, rows, terms, lesson.seed)
    notes: dict[str, Any] = {}
    if judging is not None:
        notes["early_stopping"] = {"rounds": stopped_at(estimator), "held_out": len(judging.target)}
    return Learned(estimator, ModelInputs(lesson.schema, steps), notes)


def rows_of(frame: pl.DataFrame, mask: NDArray[np.bool_]) -> pl.DataFrame:
    """The rows for which the mask is true; a slice, which copies nothing, where they follow each other."""
    count, first = int(mask.sum()), int(mask.argmax())
    if mask[first : first + count].all():
        return frame.slice(first, count)
    return frame.filter(pl.Series(mask))


def fitted_steps(family: Family, lesson: Lesson) -> tuple[tuple[FittedStep, ...], pl.DataFrame]:
    """The lesson's own steps and then the automatic ones, and what they make of the rows.

    Raises:
        DataError: a step drops rows, or no column is left.
    """
    own, frame = fit_steps(lesson.steps, lesson.inputs)
    if len(frame) != len(lesson):
        raise DataError("steps of a model may not drop rows", hint="drop them with steps of the source instead")
    gaps = possible_gaps(frame, own, lesson.inputs, lesson.schema)
    more, frame = fit_steps(automatic_steps(family, frame.schema, [n for n in frame.columns if n in gaps]), frame)
    if not frame.width:
        raise DataError("the steps leave no column to learn from", hint="check the features and steps=")
    return (*own, *more), frame


def _held_out(lesson: Lesson) -> tuple[Lesson, Lesson]:
    """The rows that teach, and those that say when to stop."""
    split = lesson.split or RandomSplit()
    try:
        teaching, judging = split.masks(lesson.times, len(lesson), lesson.seed, lesson.entities, lesson.target)
    except ConfigError as error:
        raise ConfigError(
            f"no training rows can be set aside that say when to stop: {error.message}",
            hint="give more rows, or do without: early_stopping_rounds=None, TorchModule(patience=None)",
        ) from error
    return lesson.part(teaching), lesson.part(judging)


def _held_rows(held: Lesson, steps: Sequence[FittedStep], family: Family, target: NDArray[Any]) -> Rows:
    matrix = to_columns(apply_steps(steps, held.inputs), family.dtype)
    return without_unknown_classes(Rows(matrix, held.target, held.weights), target)


def _categories(steps: Sequence[FittedStep], columns: Sequence[str]) -> list[int]:
    """The places of columns that are codes of categories."""
    coded = {
        name
        for step in steps
        if isinstance(step, FittedEncode) and step.method == "category"
        for name in step.categories
    }
    return [place for place, name in enumerate(columns) if name in coded]
