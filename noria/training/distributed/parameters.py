"""Parameters that travel: what a model is to those who average it, and what they accept from others."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from noria.core import DataError
from noria.training.distributed.partitions import Part
from noria.training.estimator import Estimator

Parameters = dict[str, NDArray[Any]]
"""Arrays by name."""
MOST_ROWS = 2.0**53
"""A weight that is greater is no number of rows; with several such their sum would be infinite, and the mean 0."""


@dataclass(frozen=True)
class Shape:
    """What a model is about.

    Attributes:
        features: how many columns.
        classes: sorted; None when a number is predicted.
        scale: mean and deviation of the numbers that are predicted, for those who learn on that scale.
    """

    features: int
    classes: NDArray[Any] | None
    scale: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Turn:
    """One round on one partition.

    Attributes:
        round: from 0.
        epochs: passes over the rows.
        seed: of everything random, of this round and partition alone.
        proximal: how strongly parameters are held to those of the round's beginning; 0 is not at all.
    """

    round: int
    epochs: int
    seed: int
    proximal: float = 0.0


@dataclass(frozen=True)
class Update:
    """What comes of a turn, and all that leaves a client.

    Attributes:
        arrays: the parameters at its end.
        weight: the number of rows, or the sum of their weights.
        loss: of the parameters that the turn began with, on these rows, a row.
    """

    arrays: Parameters
    weight: float
    loss: float


class Trainee(Protocol):
    """A model whose parameters can be given and taken."""

    def start(self, shape: Shape, seed: int) -> Parameters:
        """The parameters before the first round."""
        ...

    def improve(self, parameters: Parameters, part: Part, shape: Shape, turn: Turn) -> Update:
        """Train on a partition, from these parameters."""
        ...

    def finish(self, parameters: Parameters, shape: Shape) -> Estimator:
        """The fitted model."""
        ...


def turn_seed(seed: int, number: int, part: int) -> int:
    """A seed for a round and a partition, whoever works on it."""
    return int(np.random.SeedSequence([seed, number, part]).generate_state(1)[0])


def checked(update: object, expected: Parameters, who: str) -> Update:
    """An update that is what it should be: finite arrays of the expected names and shapes, a weight and a loss.

    Raises:
        DataError: it is anything else.
    """
    hint = f"{who} is left out; does it run the same version of the model and of noria?"
    if type(update) is not Update:
        raise DataError(f"{who} sent {type(update).__name__}, not an update", hint=hint)
    arrays = update.arrays
    if type(arrays) is not dict or arrays.keys() != expected.keys():
        names = ", ".join(map(str, arrays)) if isinstance(arrays, Mapping) else type(arrays).__name__
        raise DataError(f"{who} sent the parameters {names}, not {', '.join(expected)}", hint=hint)
    for name, array in arrays.items():
        _check_array(array, expected[name], name, who, hint)
    for name, value in (("weight", update.weight), ("loss", update.loss)):
        if type(value) is not float or not math.isfinite(value) or (name == "weight" and not 0 < value <= MOST_ROWS):
            raise DataError(f"{who} sent {value!r} as its {name}", hint=hint)
    return update


def _check_array(array: object, expected: NDArray[Any], name: str, who: str, hint: str) -> None:
    if type(array) is not np.ndarray:
        raise DataError(f"{who} sent {type(array).__name__} as {name!r}, not an array", hint=hint)
    if array.dtype != expected.dtype or array.shape != expected.shape:
        got, wanted = f"{array.dtype}{list(array.shape)}", f"{expected.dtype}{list(expected.shape)}"
        raise DataError(f"{who} sent {name!r} as {got}, not {wanted}", hint=hint)
    if not np.isfinite(array).all():
        raise DataError(f"{who} sent {name!r} with numbers that are not finite", hint=hint)


def combine(parameters: Parameters, updates: Mapping[int, Update], clip: float | None) -> Parameters:
    """The mean of the updates by their weights, summed in the order of their numbers.

    Args:
        parameters: those that the round began with.
        updates: by partition.
        clip: an update that is further away than this (Euclidean, over all arrays) is drawn nearer.
    """
    total = sum(update.weight for update in updates.values())
    mean = {name: np.zeros(array.shape, np.float64) for name, array in parameters.items()}
    for number in sorted(updates):
        update = updates[number]
        scale = _scale(parameters, update.arrays, clip)
        for name, array in update.arrays.items():
            start = parameters[name].astype(np.float64)
            moved = array if scale == 1.0 else start + scale * (array - start)
            mean[name] += update.weight / total * moved
    # Counters of a network (batches seen) are whole numbers.
    return {
        name: (array if parameters[name].dtype.kind == "f" else np.rint(array)).astype(parameters[name].dtype)
        for name, array in mean.items()
    }


def _scale(parameters: Parameters, arrays: Parameters, clip: float | None) -> float:
    if clip is None:
        return 1.0
    squares = (float(np.square(array - parameters[name].astype(np.float64)).sum()) for name, array in arrays.items())
    norm = math.sqrt(sum(squares))
    return min(1.0, clip / norm) if norm > 0 else 1.0
