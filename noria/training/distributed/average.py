"""`Average`: rounds in which each partition trains from the same parameters, whose mean is where the next begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from noria.core import ConfigError, DataError, Progress, task
from noria.training.distributed.checkpoints import Checkpoints, pack, unpack
from noria.training.distributed.crew import Crew
from noria.training.distributed.linear import Once
from noria.training.distributed.parameters import (
    Parameters,
    Shape,
    Trainee,
    Turn,
    Update,
    checked,
    combine,
    turn_seed,
)
from noria.training.distributed.partitions import Part, check_classes
from noria.training.distributed.strategy import Job, refused, trainee
from noria.training.estimator import Estimator

_SAMPLING = 2**31
"""The place of a round's sampling among the seeds, apart from all partitions."""
STATE = "round"


@dataclass(frozen=True)
class Average:
    """Parameters averaged by rows, in rounds (FedAvg: McMahan, Moore, Ramage, Hampson & Agüera y Arcas 2017).

    With one epoch a round it comes near to what one process finds; the more epochs a round, the fewer rounds, and the
    further the partitions drift apart in between where their rows differ. `proximal` holds them together (FedProx: Li,
    Sahu, Zaheer, Sanjabi, Talwalkar & Smith 2020).

    Attributes:
        rounds: how often they are averaged. 1 for models that are solved and not improved (`LogisticRegression`).
        epochs: passes of each partition over its rows in a round.
        sample: the share of the partitions that take part in a round, drawn anew for each with the run's seed.
        proximal: the strength of a pull to the round's first parameters, for linear models and networks of PyTorch.
        clip: the furthest that a partition may move (Euclidean norm) in a round; what is beyond is drawn nearer.
    """

    rounds: int = 10
    epochs: int = 1
    sample: float = 1.0
    proximal: float = 0.0
    clip: float | None = None
    name: ClassVar[str] = "average"

    def __post_init__(self) -> None:
        for field, fits, allowed in (
            ("rounds", type(self.rounds) is int and self.rounds >= 1, "whole numbers from 1"),
            ("epochs", type(self.epochs) is int and self.epochs >= 1, "whole numbers from 1"),
            ("sample", 0 < self.sample <= 1, "above 0, up to 1"),
            ("proximal", 0 <= self.proximal < float("inf"), "0 or more"),
            ("clip", self.clip is None or self.clip > 0, "above 0, or None"),
        ):
            if not fits:
                value = getattr(self, field)
                raise ConfigError(
                    f"Average: {field}={value!r} is out of range", hint=f"allowed: {allowed}", field=field
                )

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data."""
        return {"name": self.name, **asdict(self)}

    def check(self, estimator: Estimator) -> None:
        """That the estimator's parameters can be averaged in this way.

        Raises:
            ConfigError: they can't.
        """
        found = trainee(estimator)
        if found is None:
            raise refused(estimator, self.name)
        if isinstance(found, Once) and (self.rounds > 1 or self.proximal):
            kind = type(estimator).__name__
            raise ConfigError(
                f"{kind} is solved in one go: more rounds would find the same again, and nothing can hold it back",
                hint="nr.Average(rounds=1), or a model that learns by steps: SGDClassifier, SGDRegressor",
                field="rounds",
            )

    def train(self, job: Job, crew: Crew) -> tuple[Estimator, dict[str, Any]]:
        """The model, and how each round went."""
        found = trainee(job.estimator)
        assert found is not None  # `check` has seen to it
        if isinstance(found, Once) and job.shape.classes is not None:
            check_classes(job.partition, job.target, job.shape.classes, all_of_them=True)
        sites = _Partitions(found, job, crew)
        parameters, history = run_rounds(self, found, job.shape, sites, job.seed, job.checkpoints, job.progress)
        return found.finish(parameters, job.shape), {"rounds": history}


class Sites(Protocol):
    """Where rows are: partitions in the object store, or clients who keep theirs."""

    names: Sequence[str]

    def improve(self, parameters: Parameters, turns: Mapping[int, Turn]) -> tuple[dict[int, Update], dict[str, str]]:
        """The updates of these sites, by number; and which were left out, why."""
        ...


@dataclass
class _Partitions:
    trainee: Trainee
    job: Job
    crew: Crew

    def __post_init__(self) -> None:
        self.names: Sequence[str] = [f"partition {number}" for number in range(self.job.count)]

    def improve(self, parameters: Parameters, turns: Mapping[int, Turn]) -> tuple[dict[int, Update], dict[str, str]]:
        numbers = sorted(turns)
        parts, shared = self.job.parts(self.crew), self.crew.put(parameters)
        fixed = self.crew.put(self.trainee), self.crew.put(self.job.shape)
        calls = [(*fixed, shared, parts[number], turns[number]) for number in numbers]
        updates = {numbers[place]: made for place, made in self.crew.each(improve, calls)}
        return {number: checked(updates[number], parameters, self.names[number]) for number in numbers}, {}


def improve(trainee: Trainee, shape: Shape, parameters: Parameters, part: Part, turn: Turn) -> Update:
    """A turn, with a library's refusal as an error that names the partition."""
    try:
        return trainee.improve(parameters, part, shape, turn)
    except (ValueError, TypeError) as error:
        raise DataError(f"partition {part.number} ({len(part)} rows) can't be trained on: {error}") from error


def run_rounds(
    plan: Average,
    trainee: Trainee,
    shape: Shape,
    sites: Sites,
    seed: int,
    checkpoints: Checkpoints,
    progress: Progress,
) -> tuple[Parameters, list[dict[str, Any]]]:
    """All rounds, from the last checkpoint on; the parameters at their end, and how each round went.

    Raises:
        DataError: no site has given an update in a round.
    """
    parameters, history = trainee.start(shape, seed), list[dict[str, Any]]()
    if (kept := checkpoints.read(STATE)) is not None:
        parameters, facts = unpack(kept)
        history = facts["history"]
    name = f"average {len(sites.names)} parts"
    with task(progress, name, plan.rounds):
        progress.advance(name, len(history))
        for number in range(len(history), plan.rounds):
            turns = {
                site: Turn(number, plan.epochs, turn_seed(seed, number, site), plan.proximal)
                for site in sampled(len(sites.names), plan.sample, turn_seed(seed, number, _SAMPLING))
            }
            updates, left_out = sites.improve(parameters, turns)
            if not updates:
                reasons = "; ".join(f"{who}: {why}" for who, why in left_out.items())
                raise DataError(f"round {number + 1}: nobody has given an update ({reasons})")
            parameters = combine(parameters, updates, plan.clip)
            history.append(_said(updates, sites.names, left_out))
            if checkpoints.is_due(number + 1) or number + 1 == plan.rounds:
                checkpoints.write(STATE, pack(parameters, {"history": history}))
            progress.advance(name)
    return parameters, history


def sampled(count: int, share: float, seed: int) -> list[int]:
    """Which sites take part in a round: at least one."""
    size = max(1, round(count * share))
    return sorted(int(site) for site in np.random.default_rng(seed).choice(count, size, replace=False))


def _said(updates: Mapping[int, Update], names: Sequence[str], left_out: Mapping[str, str]) -> dict[str, Any]:
    weight = sum(update.weight for update in updates.values())
    loss = sum(updates[number].weight * updates[number].loss for number in sorted(updates)) / weight
    said: dict[str, Any] = {"loss": loss, "weight": weight}
    if len(updates) < len(names):
        said["took_part"] = [names[number] for number in sorted(updates)]
    if left_out:
        said["left_out"] = dict(left_out)
    return said
