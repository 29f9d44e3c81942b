"""Strategies: what becomes of partitions, and which fits which model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError, Progress
from noria.training.distributed import linear
from noria.training.distributed.checkpoints import Checkpoints
from noria.training.distributed.crew import Crew
from noria.training.distributed.networks import NetworkTrainee, is_network
from noria.training.distributed.parameters import Shape, Trainee
from noria.training.distributed.partitions import Part, cut
from noria.training.estimator import Estimator


@dataclass
class Job:
    """What there is to train.

    Attributes:
        estimator: unfitted.
        matrix: [rows, features] float64.
        target: [rows].
        weights: [rows], or None.
        times: [rows] microseconds, or None.
        partition: [rows] the partition of each row, from 0.
        shape: of the model.
        seed: of everything random.
        checkpoints: where to keep what is done.
        progress: told how far it is.
    """

    estimator: Estimator
    matrix: NDArray[np.float64]
    target: NDArray[Any]
    weights: NDArray[np.float64] | None
    times: NDArray[np.int64] | None
    partition: NDArray[np.int32]
    shape: Shape
    seed: int
    checkpoints: Checkpoints
    progress: Progress
    _stored: list[Any] = field(default_factory=list, init=False)

    @property
    def count(self) -> int:
        """How many partitions."""
        return int(self.partition.max()) + 1

    def part(self, number: int) -> Part:
        """The rows of one."""
        return cut(self.matrix, self.target, self.weights, self.partition, number)

    def parts(self, crew: Crew) -> list[Any]:
        """Each partition in the object store: put there once."""
        if not self._stored:
            self._stored = [crew.put(self.part(number)) for number in range(self.count)]
        return self._stored


@runtime_checkable
class Strategy(Protocol):
    """What becomes of the partitions."""

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        ...

    def check(self, estimator: Estimator) -> None:
        """That it fits the estimator.

        Raises:
            ConfigError: it doesn't; the error names the one that does.
        """
        ...

    def train(self, job: Job, crew: Crew) -> tuple[Estimator, dict[str, Any]]:
        """The model, and notes of how it came about."""
        ...


def trainee(estimator: Estimator) -> Trainee | None:
    """How the estimator gives and takes its parameters, if it does."""
    return NetworkTrainee(estimator) if is_network(estimator) else linear.trainee_of(estimator)


def fitting(estimator: Estimator) -> str:
    """The name of the strategy that is right for an estimator."""
    if type(estimator).__module__.partition(".")[0] in ("lightgbm", "xgboost"):
        return "histograms"
    if is_network(estimator):
        return "all_reduce"
    return "average" if type(estimator).__name__ in (*linear.INCREMENTAL, *linear.NETWORKS) else "vote"


def refused(estimator: Estimator, name: str) -> ConfigError:
    """Why a strategy is wrong for an estimator, and which one is right."""
    kind, right = type(estimator).__name__, fitting(estimator)
    why = {
        "average": f"{kind} has no parameters whose mean is a model",
        "all_reduce": f"{kind} isn't a network of PyTorch, so it has no gradients to sum",
        "histograms": f"{kind} isn't a model of LightGBM or XGBoost, which build trees from sums over all workers",
    }[name]
    reason = {
        "vote": "forests are joined tree by tree, other models vote",
        "histograms": "the library's own distributed mode",
        "all_reduce": "the same as one process with the same batches",
        "average": "parameters averaged in rounds",
    }[right]
    return ConfigError(
        f"{why}: strategy {name!r} can't train it", hint=f'strategy="{right}": {reason}', field="strategy"
    )
