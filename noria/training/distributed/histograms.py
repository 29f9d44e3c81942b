"""`Histograms`: LightGBM's and XGBoost's own distributed modes, in workers of Ray.

Each worker holds some rows; for each node of a tree the histograms of all workers are summed, and all take the same
split. LightGBM's workers talk over sockets (`machines`), XGBoost's over its collective, which the first worker tracks.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, ClassVar

import numpy as np

from noria.core import ConfigError, MissingExtraError, task
from noria.training.categorical import ByCodes, are_codes
from noria.training.distributed.crew import Address, Crew
from noria.training.distributed.parameters import turn_seed
from noria.training.distributed.partitions import Part, check_classes
from noria.training.distributed.strategy import Job, refused
from noria.training.estimator import Estimator, fresh_copy
from noria.training.families import library_of

SECONDS = 60
"""How long workers wait for each other."""
_NETWORK = ("machines", "num_machines", "local_listen_port", "time_out", "tree_learner")


@dataclass(frozen=True)
class Histograms:
    """Boosted trees of sums over all workers: nearly the model of one process on all rows.

    All workers are needed at the same time; the model depends on how many there are, in the last bits of sums and in
    the borders between bins, which each worker finds for some of the features (LightGBM) or all together from
    summaries (XGBoost). When one dies, all begin again.
    """

    name: ClassVar[str] = "histograms"

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        return {"name": self.name}

    def check(self, estimator: Estimator) -> None:
        """That it is a model of LightGBM or XGBoost.

        Raises:
            ConfigError: it isn't.
        """
        if library_of(estimator) not in ("lightgbm", "xgboost"):
            raise refused(estimator, self.name)
        if getattr(estimator, "early_stopping_rounds", None):
            raise ConfigError(
                "early stopping needs rows that no worker trains on, which distributed training doesn't hold back",
                hint="leave early_stopping_rounds out",
                field="early_stopping_rounds",
            )

    def train(self, job: Job, crew: Crew) -> tuple[Estimator, dict[str, Any]]:
        """The model, and how many workers made it."""
        ranks = min(crew.size(), job.count)
        if job.shape.classes is not None:
            check_classes(job.partition % ranks, job.target, job.shape.classes, all_of_them=True)
        work = with_lightgbm if library_of(job.estimator) == "lightgbm" else with_xgboost
        classes = job.shape.classes
        if work is with_lightgbm or classes is None or are_codes(classes):
            classes = None
        else:  # XGBoost knows no others
            job = replace(job, target=np.searchsorted(classes, job.target))
        kept = job.checkpoints.read(f"trees-{ranks}")
        if kept is None:
            parts, model = job.parts(crew), crew.put(seeded(job))
            with task(job.progress, f"boost on {ranks} workers"):
                kept = crew.together(work, [(model, *parts[rank::ranks]) for rank in range(ranks)])[0]
            job.checkpoints.write(f"trees-{ranks}", kept)
        estimator: Estimator = pickle.loads(kept)  # of a worker of ours, or of the run's own folder
        return estimator if classes is None else ByCodes(estimator, (), classes), {"workers": ranks}


def seeded(job: Job) -> Estimator:
    """The estimator for one worker: with one thread, and the run's seed where it has none."""
    model: Any = fresh_copy(job.estimator)
    if model.get_params().get("random_state") is None:
        model.set_params(random_state=turn_seed(job.seed, 0, 0) % 2**31)
    model.set_params(n_jobs=1)
    return model  # type: ignore[no-any-return]


def with_lightgbm(addresses: Sequence[Address], rank: int, model: Any, *parts: Part) -> bytes:
    """One worker's side of LightGBM's training; all get the same model."""
    rows = reduce(add, parts)
    jobs = {"machines": ",".join(f"{host}:{port}" for host, port in addresses), "num_machines": len(addresses)}
    if len(addresses) > 1:
        model.set_params(
            **jobs, local_listen_port=addresses[rank][1], time_out=max(1, SECONDS // 60), tree_learner="data"
        )
    model.set_params(verbosity=-1)
    try:
        model.fit(rows.matrix, rows.target, sample_weight=rows.weights)
    finally:
        if getattr(model, "fitted_", False):
            model.booster_.free_network()
    return pickle.dumps(_without_network(model), protocol=5)


def _without_network(model: Any) -> Any:
    """The model without the addresses of those who made it."""
    for name in _NETWORK:
        model._other_params.pop(name, None)
        if name in model.__dict__:
            delattr(model, name)
    return model


def with_xgboost(addresses: Sequence[Address], rank: int, model: Any, *parts: Part) -> bytes:
    """One worker's side of XGBoost's training; all get the same model."""
    try:
        from xgboost.collective import CommunicatorContext
        from xgboost.tracker import RabitTracker
    except ImportError as error:
        raise MissingExtraError("xgboost", "xgboost", "this model") from error
    rows = reduce(add, parts)
    host, port = addresses[0]
    tracker = None
    if rank == 0:
        tracker = RabitTracker(n_workers=len(addresses), host_ip=host, port=port, sortby="task", timeout=SECONDS)
        tracker.start()
    known: dict[str, Any] = {"dmlc_tracker_uri": host, "dmlc_tracker_port": port, "dmlc_task_id": f"{rank:06d}"}
    # The tracker may come up after the others have first knocked.
    known |= {"dmlc_timeout": SECONDS, "dmlc_retry": 10}
    with CommunicatorContext(**known):
        model.fit(rows.matrix, rows.target, sample_weight=rows.weights)
    if tracker is not None:
        tracker.wait_for(SECONDS)
        tracker.free()
    return pickle.dumps(model, protocol=5)
