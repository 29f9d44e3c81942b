"""Networks of PyTorch: summed gradients, averaged parameters, and what holds them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest

import noria as nr
from noria.core import Schema
from noria.training.distributed.networks import (
    NetworkTrainee,
    optimizer_of,
    picked,
    summed_loss,
    taken,
    tensors,
    untrained,
)
from noria.training.distributed.parameters import Shape, Turn, checked, turn_seed
from noria.training.distributed.partitions import Part, by_rows, cut
from noria.training.families import family_of
from noria.training.inputs import to_matrix
from noria.training.learner import Lesson, fitted_steps

torch = pytest.importorskip("torch")
pytest.importorskip("ray")
from noria.training import torch_module as modules  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

NAMES = [f"x{number}" for number in range(5)]
NETWORK = modules.TorchModule(hidden=(8,), epochs=3, batch=64, learning_rate=0.01)
MATRIX = np.random.default_rng(0).normal(size=(403, 5))
TARGETS = {
    "two": (MATRIX[:, 0] * MATRIX[:, 1] + MATRIX[:, 2] > 0),
    "three": np.digitize(MATRIX[:, 0] + MATRIX[:, 1], [-0.5, 0.5]),
    "number": MATRIX[:, 0] * 30 + 100,
}


def shape_of(kind: str) -> Shape:
    target = TARGETS[kind]
    if kind == "number":
        return Shape(5, None, (float(target.mean()), float(target.std())))
    return Shape(5, np.unique(target))


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    from noria.pipelines.ray_compute import connect

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield connect("ray")
        import ray

        ray.shutdown()


@pytest.mark.parametrize("kind", TARGETS)
def test_parameters_are_given_and_taken(kind: str) -> None:
    found, shape, part = NetworkTrainee(NETWORK), shape_of(kind), Part(0, MATRIX, TARGETS[kind])
    parameters = found.start(shape, 1)
    again = found.start(shape, 1)
    assert all(np.array_equal(parameters[name], again[name]) for name in parameters)
    losses = []
    for number in range(6):
        update = checked(found.improve(parameters, part, shape, Turn(number, 2, number)), parameters, "x")
        parameters = update.arrays
        losses.append(update.loss)
    assert losses[-1] < losses[0]
    model: Any = found.finish(parameters, shape)
    if kind == "number":
        assert np.corrcoef(model.predict(MATRIX), TARGETS[kind])[0, 1] > 0.9
    else:
        assert np.mean(model.predict(MATRIX) == TARGETS[kind]) > 0.6


def test_a_proximal_term_holds_a_network() -> None:
    found, shape, part = NetworkTrainee(NETWORK), shape_of("two"), Part(0, MATRIX, TARGETS["two"])
    start = found.start(shape, 1)
    moved = []
    for strength in (0.0, 1.0, 100.0):
        arrays = found.improve(start, part, shape, Turn(0, 5, 3, strength)).arrays
        moved.append(sum(float(np.square(arrays[name] - start[name]).sum()) for name in start))
    assert moved[0] > moved[1] > moved[2]


def test_summed_gradients_are_those_of_one_process(ray: Any) -> None:
    """A plain loop over the same batches, two workers, and one: the same network, to the order of the sums."""
    wanted = TARGETS["three"]
    lesson = Lesson(pl.DataFrame(MATRIX, schema=NAMES), wanted, Schema.of(dict.fromkeys(NAMES, "float64")), seed=4)
    shape, parts = shape_of("three"), by_rows(wanted, 3, 4)
    matrix = to_matrix(fitted_steps(family_of(NETWORK), lesson)[1])  # brought to one scale, as a network wants it
    pieces = [cut(matrix, wanted, None, parts, number) for number in range(3)]
    model = untrained(NETWORK, shape, turn_seed(4, 0, 0))
    optimizer, rows = optimizer_of(model, model.module_), [tensors(piece, shape) for piece in pieces]
    steps = -(-len(wanted) // NETWORK.batch)
    for epoch in range(NETWORK.epochs):
        dealt = [np.array_split(np.random.default_rng([4, epoch, p.number]).permutation(len(p)), steps) for p in pieces]
        for step in range(steps):
            some = [picked(part, places[step]) for part, places in zip(rows, dealt, strict=True)]
            given, target, weights = (torch.cat([one[column] for one in some]) for column in range(3))
            optimizer.zero_grad()
            (summed_loss(model.module_, (given, target, weights), shape) / weights.sum()).backward()
            optimizer.step()
    plain = taken(model.module_)
    for workers in (2, 1):
        training = nr.DistributedTraining(NETWORK, partitions=3, workers=workers)
        learned = training.learn(lesson)
        assert learned.notes["distributed"]["strategy"] == "all_reduce"
        losses = learned.notes["distributed"]["losses"]
        assert losses[-1] < losses[0]
        made = taken(learned.estimator.module_)  # type: ignore[attr-defined]
        assert all(np.allclose(made[name], plain[name], atol=1e-5) for name in plain)
