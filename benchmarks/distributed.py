"""Distributed training: two workers of Ray against one, on a model that does nothing but compute."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from benchmarks.measure import markdown, median
from noria.core import NoProgress
from noria.training.distributed.checkpoints import Checkpoints
from noria.training.distributed.crew import Address, Crew
from noria.training.distributed.ensembles import Vote
from noria.training.distributed.parameters import Shape
from noria.training.distributed.partitions import by_rows
from noria.training.distributed.strategy import Job

ROWS, FEATURES, TREES, PARTITIONS, RUNS = 100_000, 20, 400, 8, 3
BAR = 1.6


def run(rows: int = ROWS, trees: int = TREES, runs: int = RUNS) -> str:
    import ray

    warnings.simplefilter("ignore")
    load = os.getloadavg()[0]
    began = time.perf_counter()
    with Crew("ray", 1):
        started = time.perf_counter() - began
    taken: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(runs):
        for workers in taken:
            taken[workers].append(trained(job(rows, trees), workers))
    ray.shutdown()
    starts, times = ({n: median([one[part] for one in taken[n]]) for n in taken} for part in (0, 1))
    table = [(f"{n}", f"{starts[n]:.1f}", f"{times[n]:.1f}", f"{starts[n] + times[n]:.1f}") for n in taken]
    total = (starts[1] + times[1]) / (starts[2] + times[2])
    table.append(("ratio", "", f"{times[1] / times[2]:.2f} ×", f"{total:.2f} ×"))
    return markdown(
        f"Distributed training: a forest of {trees} trees, {rows:,} rows in {PARTITIONS} partitions",
        ("workers", "start, seconds", "training, seconds", "both, seconds"),
        table,
        f"Medians of {runs} runs, in turn; bar: {BAR} × faster with two workers on two cores. The start is of the "
        f"workers, with scikit-learn's import; Ray itself took {started:.1f} s before, once. The machine's load was "
        f"{load:.1f} at the beginning: with other work beside it, read the ratio with care.",
    )


def job(rows: int, trees: int) -> Job:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(rows, FEATURES))
    target = (matrix[:, :5].sum(axis=1) + matrix[:, 0] * matrix[:, 1] + random.normal(size=rows) > 0).astype(np.int64)
    model: Any = RandomForestClassifier(trees, min_samples_leaf=5)
    partition, shape = by_rows(target, PARTITIONS, 0), Shape(FEATURES, np.array([0, 1]))
    return Job(model, matrix, target, None, None, partition, shape, 0, Checkpoints(None, ""), NoProgress())


def trained(work: Job, workers: int) -> tuple[float, float]:
    """Seconds until the workers are ready, and until the forest is."""
    began = time.perf_counter()
    with Crew("ray", workers) as crew:
        crew.together(warm, [()] * workers)
        ready = time.perf_counter()
        Vote().train(work, crew)
        return ready - began, time.perf_counter() - ready


def warm(addresses: Sequence[Address], rank: int) -> str:
    return RandomForestClassifier.__name__


if __name__ == "__main__":
    print(run())
