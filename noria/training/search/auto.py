"""`Auto`: the best model of several families, with its parameters, within a budget."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl

from noria.core import ConfigError, allowed, task
from noria.pipelines import Encode
from noria.training.learner import Learned, Lesson, fit_once
from noria.training.metrics import METRICS, check_metrics
from noria.training.search.budget import Budget
from noria.training.search.contest import Contest
from noria.training.search.families import FAMILIES, Family, Problem
from noria.training.search.folds import Fold, fold_of, masks
from noria.training.search.journal import open_storage
from noria.training.search.report import pruning_rule
from noria.training.search.trial import Clock

DEFAULT_MINUTES = 5.0
FEW, MANY = 5_000, 50_000
"""Rows: with fewer than the first, five folds judge; with fewer than the second, three; else one."""
PLENTY_OF_CATEGORIES = 40
"""Of text that becomes a column for each."""


@dataclass(frozen=True)
class Auto:
    """A learner that tries families of models, good parameters first, then better ones, and takes the best.

    It never gives a model that isn't better, on the rows that judge, than saying the same of every row.

    Attributes:
        metric: by which models are judged; by default the first one of the pipeline.
        minutes: at most so long, the last fit included; by default 5, unless `trials` are given.
        trials: at most so many; with these alone, the same seed gives the same model.
        families: names of those to try; by default all whose library is installed.
        folds: on which each trial is judged; by default by the number of rows, 5, 3 or 1.
        pruning: whether unpromising trials end early, as in `nr.tune`.
    """

    metric: str | None = None
    minutes: float | None = None
    trials: int | None = None
    families: Sequence[str] | None = None
    folds: int | None = None
    pruning: bool | str = True
    clock: Clock = field(default=time.monotonic, repr=False)

    def __post_init__(self) -> None:
        if self.metric is not None:
            check_metrics((self.metric,))
        pruning_rule(self.pruning)
        names = [family.name for family in FAMILIES]
        for name in self.families or ():
            if name not in names:
                raise ConfigError(f"unknown family {name!r}", hint=allowed(names, name), field="families")
        self.budget  # noqa: B018 (checked where it is written)

    @property
    def budget(self) -> Budget:
        """What it may take."""
        neither = self.minutes is None and self.trials is None
        return Budget(self.trials, DEFAULT_MINUTES if neither else self.minutes, self.clock)

    def to_dict(self) -> dict[str, Any]:
        return {
            "learner": "auto",
            "metric": self.metric,
            "minutes": self.budget.minutes,
            "trials": self.trials,
            "families": None if self.families is None else list(self.families),
            "folds": self.folds,
            "pruning": pruning_rule(self.pruning),
        }

    def learn(self, lesson: Lesson) -> Learned:
        """Try, then fit the best to all rows.

        Raises:
            ConfigError: the metric doesn't go with what is to be predicted.
        """
        metric = self.metric or lesson.metric
        check_metrics((metric,))
        budget = self.budget.begun()
        problem = problem_of(lesson, metric)
        storage = open_storage(lesson.directory)
        chosen = {f: f.missing() for f in FAMILIES if self.families is None or f.name in self.families}
        if all(chosen.values()):
            raise ConfigError(
                f"no family can be tried: {', '.join(set(chosen.values()))}",
                hint=f"leave families= out, or name others: {', '.join(family.name for family in FAMILIES)}",
                field="families",
            )
        plain = replace(lesson, steps=(*lesson.steps, *text_steps(lesson, onehot=False)))
        columns = replace(lesson, steps=(*lesson.steps, *text_steps(lesson, onehot=True)))
        pairs = masks(lesson, self.folds or folds_for(len(lesson)), is_regression=problem.is_regression)
        folds = [fold_of(plain, *pair) for pair in pairs]
        wide = folds if columns.steps == plain.steps else [fold_of(columns, *pair) for pair in pairs]

        def folds_of(family: Family) -> list[Fold]:
            return wide if family.onehot else folds

        contest = Contest(storage, chosen, problem, metric, folds_of, budget, pruning_rule(self.pruning), lesson)
        with task(lesson.progress, contest.task, self.trials):
            contest.run()
        winner, notes = contest.result()
        lessons = columns if winner.onehot else plain
        learned = fit_once(winner.estimator, winner.some_of(lessons))
        added = [step.to_dict() for step in lessons.steps[len(lesson.steps) :]]
        return Learned(
            learned.estimator,
            learned.inputs,
            {**learned.notes, **({"steps": added} if added else {}), "search": notes},
        )


def problem_of(lesson: Lesson, metric: str) -> Problem:
    """Whether classes or numbers are to be predicted: by the metric, then by the target's type.

    Raises:
        ConfigError: the metric needs classes, and the target is a number with a fraction.
    """
    kind = lesson.target.dtype.kind
    is_of_numbers = METRICS[metric].of == "numbers"
    if kind == "f" and not is_of_numbers:
        raise ConfigError(
            f"metric {metric!r} judges classes, and the target is a number",
            hint="allowed for numbers: rmse, mae; or make the target a whole number, text or a Boolean",
            field="metrics",
        )
    if is_of_numbers and kind not in "fiu":
        raise ConfigError(
            f"metric {metric!r} judges numbers, and the target is none",
            hint=allowed(name for name in METRICS if METRICS[name].of == "classes"),
            field="metrics",
        )
    is_regression = kind == "f" or is_of_numbers
    classes = np.unique(lesson.target)
    if METRICS[metric].needs_scores and len(classes) != 2 and metric != "log_loss":
        raise ConfigError(
            f"metric {metric!r} needs two classes, and the target has {len(classes)}",
            hint="use accuracy, f1 or log_loss",
        )
    return Problem(is_regression, lesson.seed)


def folds_for(rows: int) -> int:
    """How many folds judge so many rows well enough."""
    return 5 if rows < FEW else 3 if rows < MANY else 1


def text_steps(lesson: Lesson, *, onehot: bool) -> tuple[Encode, ...]:
    """What makes numbers of the text that is left after the lesson's own steps."""
    text = [name for name, dtype in lesson.inputs.schema.items() if dtype in (pl.String, pl.Categorical, pl.Enum)]
    if not text:
        return ()
    return (Encode(method="onehot", max_categories=PLENTY_OF_CATEGORIES) if onehot else Encode(),)
