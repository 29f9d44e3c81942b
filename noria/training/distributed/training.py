"""`DistributedTraining`: a learner whose model comes of many partitions, on Ray."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError, allowed
from noria.training.distributed.all_reduce import AllReduce
from noria.training.distributed.average import Average
from noria.training.distributed.checkpoints import Checkpoints, check_every, data_key
from noria.training.distributed.crew import Crew
from noria.training.distributed.ensembles import Stack, Vote
from noria.training.distributed.histograms import Histograms
from noria.training.distributed.parameters import Shape
from noria.training.distributed.partitions import BY, by_entity, by_rows
from noria.training.distributed.strategy import Job, Strategy, fitting
from noria.training.estimator import Estimator, definition
from noria.training.families import family_of
from noria.training.inputs import ModelInputs, to_matrix
from noria.training.learner import Learned, Lesson, fitted_steps

STRATEGIES: dict[str, type[Any]] = {kind.name: kind for kind in (AllReduce, Average, Histograms, Stack, Vote)}
"""By their names."""


@dataclass(frozen=True)
class DistributedTraining:
    """Trains an estimator on partitions of the rows, by several workers of Ray.

    The steps are fitted to all rows first. What the model is depends on the partitions and the seed, not on how many
    workers there are or which of them dies; `AllReduce` and `Histograms` say what else they depend on.

    Attributes:
        model: anything with `fit` and `predict` that the strategy can train.
        strategy: its name, or the strategy itself; None for the one that is right for the model.
        partitions: how many; more than workers, so that one that joins late, or replaces a dead one, finds work.
        by: `rows` cuts anywhere and deals the classes out evenly; `entity` keeps an entity's rows together.
        workers: at most so many; None for as many as the cluster has CPUs.
        checkpoint: rounds, or a duration such as `60s`, between two checkpoints, where the run has a folder for them.
        compute: `ray`, `ray://HOST:PORT`; None for what the settings say, and `ray` where they say `local`.

    Raises:
        ConfigError: the strategy doesn't fit the model, or an argument is out of range.
    """

    model: Estimator
    strategy: str | Strategy | None = None
    partitions: int = 8
    by: str = "rows"
    workers: int | None = None
    checkpoint: int | str = 1
    compute: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.strategy, str) and self.strategy not in STRATEGIES:
            raise ConfigError(
                f"unknown strategy {self.strategy!r}", hint=allowed(STRATEGIES, self.strategy), field="strategy"
            )
        if self.by not in BY:
            raise ConfigError(f"by={self.by!r}", hint=allowed(BY, self.by), field="by")
        for name in ("partitions", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value!r}", hint="allowed: 1 or more", field=name)
        if self.compute is not None and self.compute != "ray" and not self.compute.startswith("ray://"):
            raise ConfigError(f"compute={self.compute!r}", hint=allowed(["ray", "ray://HOST:PORT"]), field="compute")
        check_every(self.checkpoint)
        self.plan.check(self.model)

    @property
    def plan(self) -> Strategy:
        """The strategy."""
        if self.strategy is None or isinstance(self.strategy, str):
            made: Strategy = STRATEGIES[self.strategy or fitting(self.model)]()
            return made
        return self.strategy

    def to_dict(self) -> dict[str, Any]:
        # Where it is trained, and with how many workers, is no part of what it is.
        return {
            "name": "distributed",
            "model": definition(self.model),
            "strategy": self.plan.to_dict(),
            "partitions": self.partitions,
            "by": self.by,
        }

    def learn(self, lesson: Lesson) -> Learned:
        """Fit the steps, cut the rows, train, put together.

        Raises:
            ConfigError: there is no cluster at the address.
            DataError: the rows can't be cut so, or a partition can't be trained on.
            MissingExtraError: Ray isn't installed.
            StorageError: workers die again and again.
        """
        steps, frame = fitted_steps(family_of(self.model), lesson)
        matrix = to_matrix(frame)
        compute = self.compute or lesson.compute
        if self.by == "entity":
            partition = by_entity(lesson.entities, self.partitions)
        else:
            partition = by_rows(lesson.target, self.partitions, lesson.seed)
        folder = None if lesson.directory is None else lesson.directory / "distributed"
        data = (matrix, lesson.target, lesson.weights, lesson.times, partition)
        key = "" if folder is None else data_key(self.to_dict(), lesson.seed, *data)
        job = Job(
            self.model,
            matrix,
            lesson.target,
            lesson.weights,
            lesson.times,
            partition,
            shape_of(matrix, lesson.target),
            lesson.seed,
            Checkpoints(folder, key, self.checkpoint),
            lesson.progress,
        )
        with Crew("ray" if compute == "local" else compute, self.workers) as crew:
            estimator, notes = self.plan.train(job, crew)
            sizes = [int(size) for size in np.bincount(partition)]
            told = {"strategy": self.plan.to_dict()["name"], "partitions": sizes, "workers_lost": crew.lost}
        return Learned(estimator, ModelInputs(lesson.schema, steps), {"distributed": {**told, **notes}})


def shape_of(matrix: NDArray[np.float64], target: NDArray[Any]) -> Shape:
    """What a model of these rows is about."""
    if target.dtype.kind == "f":
        return Shape(matrix.shape[1], None, (float(target.mean()), float(target.std()) or 1.0))
    return Shape(matrix.shape[1], np.unique(target))
