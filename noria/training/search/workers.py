"""Workers: who runs a search's trials: this process one after the other, or Ray as many at once as there are cores."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from noria.pipelines.ray_compute import connect
from noria.pipelines.ray_compute import get as result_of
from noria.training.estimator import Estimator
from noria.training.search.folds import Fold
from noria.training.search.report import FAILED, Report
from noria.training.search.trial import Trial


@dataclass(frozen=True)
class Job:
    """A trial that is to be run.

    Attributes:
        make: gives the estimator, unfitted.
        bars: the value that it has to reach at each step.
        seconds: after which it has to end; None: whenever it is ready.
    """

    make: Callable[[], Estimator]
    bars: Mapping[int, float] = field(default_factory=dict)
    seconds: float | None = None


class Workers(Protocol):
    """Who runs jobs.

    Attributes:
        slots: how many at once.
    """

    slots: int

    def start(self, number: int, job: Job) -> None:
        """Take on a job; no more than `slots` may be under way."""
        ...

    def wait(self) -> tuple[int, Report]:
        """The number and the report of a job that is ready."""
        ...


class Here:
    """This process: a job begins when it is waited for. Libraries use all cores for one fit."""

    slots = 1

    def __init__(self, trial: Trial, folds: Sequence[Fold]) -> None:
        self._trial, self._folds = trial, folds
        self._jobs: dict[int, Job] = {}

    def start(self, number: int, job: Job) -> None:
        self._jobs[number] = job

    def wait(self) -> tuple[int, Report]:
        number, job = self._jobs.popitem()
        return number, self._trial.run(job.make, self._folds, job.bars, job.seconds)


class OnRay:
    """A Ray cluster: each job has one core. The folds are put there once."""

    def __init__(self, address: str, trial: Trial, folds: Sequence[Fold], estimator: Estimator) -> None:
        self._ray = connect(address)
        self._send_code_of(estimator)
        self._trial, self._folds = self._ray.put(trial), self._ray.put(list(folds))
        self._run = self._ray.remote(max_retries=1)(_run)
        self._under_way: dict[Any, int] = {}
        self.slots = max(1, int(self._ray.cluster_resources().get("CPU", 1)))

    def _send_code_of(self, estimator: Estimator) -> None:
        """A class of the project's own travels with its code: its module is nowhere on the workers' path."""
        module = sys.modules.get(type(estimator).__module__)
        file = getattr(module, "__file__", None)
        if module is not None and file and not {"site-packages", "dist-packages"} & set(Path(file).parts):
            self._ray.cloudpickle.register_pickle_by_value(module)

    def start(self, number: int, job: Job) -> None:
        self._under_way[self._run.remote(self._trial, self._folds, job)] = number

    def wait(self) -> tuple[int, Report]:
        (ready, *_), _ = self._ray.wait(list(self._under_way))
        number = self._under_way.pop(ready)
        try:
            report: Report = result_of(self._ray, ready)
        except Exception as error:  # its process died, or what it was given can't be sent
            reason = f"{type(error).__name__}: {getattr(error, 'message', None) or error}"
            return number, Report(FAILED, reason=reason.splitlines()[0][:300])
        return number, report


def _run(trial: Trial, folds: Sequence[Fold], job: Job) -> Report:
    return trial.run(job.make, folds, job.bars, job.seconds)


def workers(address: str, trial: Trial, folds: Sequence[Fold], estimator: Estimator) -> Workers:
    """Those at an address: `local`, `ray`, or `ray://HOST:PORT`."""
    return Here(trial, folds) if address == "local" else OnRay(address, trial, folds, estimator)
