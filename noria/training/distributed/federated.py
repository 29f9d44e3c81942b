"""`FederatedTraining`: rounds of averaging over clients whose rows never leave them.

A client is a function that loads its rows, called where the client is: in a process of Ray's of its own. What comes
back is an `Update` (parameters, how many rows, a loss), made by the client's side of this module and checked here
again: the names, types and shapes of the arrays, and that all numbers are finite.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from noria.core import ConfigError, DataError, NoProgress, NoriaError, Progress, allowed
from noria.pipelines.ray_compute import connect
from noria.training.distributed.average import Average, run_rounds
from noria.training.distributed.checkpoints import Checkpoints, check_every, data_key
from noria.training.distributed.crew import START_SECONDS, cause
from noria.training.distributed.networks import is_network
from noria.training.distributed.parameters import Parameters, Shape, Trainee, Turn, Update, checked
from noria.training.distributed.partitions import Part
from noria.training.distributed.strategy import trainee
from noria.training.estimator import Estimator, definition
from noria.training.inputs import to_matrix

Load = Callable[[], tuple[Any, Any]]
"""Gives a client's rows: a matrix [rows, features], or a frame with the features by name; and the target [rows]."""


@dataclass(frozen=True)
class Federated:
    """What came of it.

    Attributes:
        estimator: fitted.
        rounds: of each: the loss that it began with, the rows, who took part, and who was left out and why.
    """

    estimator: Estimator
    rounds: list[dict[str, Any]]


@dataclass(frozen=True)
class FederatedTraining:
    """Trains a model on the rows of clients without moving them (FedAvg; FedProx with `proximal`).

    In each round some clients train from the same parameters, and the mean of what they send, by their rows, is where
    the next one begins. A client that doesn't answer in time, or sends something else, is left out of the round, and
    the round says so. This guards against mistakes, not against a client with ill will: Ray's clients are processes of
    one cluster, whose owner may run code on all of it; and parameters can tell something of the rows they come from.

    Attributes:
        model: a linear model of scikit-learn that learns by steps, its network, or one of PyTorch.
        clients: by name, the function that loads its rows.
        features: the names of the inputs, the same for all clients.
        classes: all classes; None when a number is predicted.
        strategy: rounds, epochs, the share of the clients in a round, proximal term, clipping.
        timeout: seconds that a client may take for a round.
        least: with fewer updates than this a round is an error.
        place: of clients with a machine of their own, the Ray resource that this machine has
            (`ray start --resources '{"oslo": 1}'`), by the client's name.
        scale: mean and deviation of a number that a network predicts, which no one can know from all rows.
        checkpoint: rounds, or a duration such as `60s`, between two checkpoints.

    Raises:
        ConfigError: the model's parameters can't be averaged, or an argument is out of range.
    """

    model: Estimator
    clients: Mapping[str, Load]
    features: Sequence[str]
    classes: Sequence[Any] | None = None
    strategy: Average = field(default_factory=Average)
    timeout: float = 60.0
    least: int = 1
    place: Mapping[str, str] = field(default_factory=dict)
    scale: tuple[float, float] = (0.0, 1.0)
    checkpoint: int | str = 1

    def __post_init__(self) -> None:
        self.strategy.check(self.model)
        check_every(self.checkpoint)
        if not self.clients or not self.features:
            raise ConfigError("federated training needs clients and the names of their features")
        if repeated := [name for place, name in enumerate(self.features) if name in self.features[:place]]:
            raise ConfigError(f"features has {repeated[0]!r} twice", hint="name each once", field="features")
        self._check_classes()
        if not self.timeout > 0 or not 1 <= self.least <= len(self.clients):
            raise ConfigError(
                f"timeout={self.timeout!r}, least={self.least!r}",
                hint=f"allowed: a timeout above 0 s, and least from 1 to {len(self.clients)}, the number of clients",
            )
        unknown = [name for name in self.place if name not in self.clients]
        if unknown:
            raise ConfigError(f"place has no client {unknown[0]!r}", hint=allowed(self.clients, unknown[0]))

    def _check_classes(self) -> None:
        """No client sees the others' rows, so that what there is to tell apart has to be said; a network takes both."""
        from sklearn.base import is_classifier, is_regressor

        if is_network(self.model):
            return
        kind = type(self.model).__name__
        if self.classes is None and is_classifier(self.model):
            raise ConfigError(f"{kind} tells classes apart", hint="name all of them: classes=[0, 1]", field="classes")
        if self.classes is not None and is_regressor(self.model):
            raise ConfigError(f"{kind} predicts numbers, and classes are given", hint="leave them out", field="classes")

    def fit(
        self,
        *,
        seed: int = 0,
        compute: str = "ray",
        directory: Path | None = None,
        progress: Progress | None = None,
    ) -> Federated:
        """All rounds.

        Args:
            seed: of everything random.
            compute: `ray`, or `ray://HOST:PORT`.
            directory: for checkpoints; a run with the same definition and seed goes on from the last one.
            progress: told how far it is.

        Raises:
            ConfigError: there is no cluster at the address.
            DataError: too few clients have given an update in a round.
            MissingExtraError: Ray isn't installed.
        """
        classes = None if self.classes is None else np.unique(np.asarray(self.classes))
        shape = Shape(len(self.features), classes, self.scale)
        found = trainee(self.model)
        assert found is not None  # the strategy has checked it
        key = "" if directory is None else data_key(self.to_dict(), seed)
        checkpoints = Checkpoints(directory, key, self.checkpoint)
        with _Clients(self, found, shape, connect("ray" if compute == "local" else compute)) as sites:
            parameters, rounds = run_rounds(
                self.strategy, found, shape, sites, seed, checkpoints, progress or NoProgress()
            )
        return Federated(found.finish(parameters, shape), rounds)

    def to_dict(self) -> dict[str, Any]:
        """The definition as plain JSON data; of the clients, their names."""
        return {
            "name": "federated",
            "model": definition(self.model),
            "clients": sorted(self.clients),
            "features": list(self.features),
            "classes": None if self.classes is None else [str(value) for value in self.classes],
            "strategy": self.strategy.to_dict(),
            "scale": list(self.scale),
        }


class Client:
    """A client's side: it has the rows, and gives updates."""

    def __init__(self, name: str, load: Load, features: Sequence[str], trainee: Trainee, shape: Shape) -> None:
        self._name = name
        self._load = load
        self._features = list(features)
        self._trainee = trainee
        self._shape = shape
        self._part: Part | None = None

    def ready(self) -> bool:
        return True

    def improve(self, parameters: Parameters, turn: Turn) -> Update | str:
        """An update, or in words why there is none; the words hold nothing of the rows."""
        try:
            if self._part is None:
                self._part = read(self._loaded(), self._features, self._shape)
            made = self._trainee.improve(parameters, self._part, self._shape, turn)
            return checked(made, parameters, self._name)
        except NoriaError as error:
            return error.message
        except Exception as error:
            traceback.print_exc()
            return f"it failed with {type(error).__name__}; its own log says more"

    def _loaded(self) -> tuple[Any, Any]:
        try:
            return self._load()
        except Exception as error:
            traceback.print_exc()
            # Whatever it says may quote a row.
            raise DataError(f"its rows can't be loaded ({type(error).__name__}); its own log says more") from None


def read(loaded: tuple[Any, Any], features: Sequence[str], shape: Shape) -> Part:
    """A client's rows.

    Raises:
        DataError: they have other features or classes than all clients have agreed on, no rows, or gaps.
    """
    rows, target = loaded
    if isinstance(rows, pl.DataFrame):
        missing = [name for name in features if name not in rows.columns]
        if missing:
            raise DataError(f"it has no feature {missing[0]!r} ({len(missing)} of {len(features)} are missing)")
        matrix = to_matrix(rows.select(features))
    else:
        matrix = np.ascontiguousarray(rows, np.float64)
    wanted = np.asarray(target)
    if matrix.ndim != 2 or matrix.shape[1] != len(features):
        width = matrix.shape[1] if matrix.ndim == 2 else 0
        raise DataError(f"it has {width} features, and all clients have {len(features)}")
    if len(wanted) != len(matrix) or not len(wanted):
        raise DataError(f"it has {len(matrix)} rows and {len(wanted)} targets")
    if not np.isfinite(matrix).all():
        raise DataError("it has rows with missing or infinite numbers")
    if shape.classes is not None and not np.isin(wanted, shape.classes).all():
        raise DataError("it has rows of a class that isn't among the classes")
    if shape.classes is None:
        wanted = wanted.astype(np.float64)
        if not np.isfinite(wanted).all():
            raise DataError("it has targets that are missing or infinite")
    return Part(0, matrix, wanted)


@dataclass
class _Clients:
    """The clients as processes of Ray. One that dies is started again by Ray, and loads its rows again."""

    plan: FederatedTraining
    trainee: Trainee
    shape: Shape
    ray: Any
    _actors: dict[int, Any] = field(default_factory=dict, init=False)
    _late: dict[int, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.names: Sequence[str] = sorted(self.plan.clients)

    def __enter__(self) -> _Clients:
        kind = self.ray.remote(max_restarts=-1)(Client)
        for number, name in enumerate(self.names):
            place = self.plan.place.get(name)
            # Without a machine of their own they share this one's cores: they work in turn, not all at once.
            where = {"num_cpus": 0} if place is None else {"num_cpus": 0, "resources": {place: 0.001}}
            given = (name, self.plan.clients[name], self.plan.features, self.trainee, self.shape)
            self._actors[number] = kind.options(**where).remote(*given)
        # That many processes start slowly has nothing to do with how long a round may take.
        begun = [actor.ready.remote() for actor in self._actors.values()]
        self.ray.wait(begun, num_returns=len(begun), timeout=START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors.values():
            self.ray.kill(actor)

    def improve(self, parameters: Parameters, turns: Mapping[int, Turn]) -> tuple[dict[int, Update], dict[str, str]]:
        left_out = {self.names[number]: "it is still at work on an earlier round" for number in self._at_work(turns)}
        shared = self.ray.put(parameters)
        asked = {
            self._actors[number].improve.remote(shared, turn): number
            for number, turn in turns.items()
            if self.names[number] not in left_out
        }
        updates, waiting, until = dict[int, Update](), list(asked), time.monotonic() + self.plan.timeout
        while waiting and (left := until - time.monotonic()) > 0:
            done, waiting = self.ray.wait(waiting, num_returns=1, timeout=left)
            for reference in done:
                self._take(reference, asked[reference], parameters, updates, left_out)
        for reference in waiting:
            self._late[asked[reference]] = reference
            left_out[self.names[asked[reference]]] = f"no answer within {self.plan.timeout:g} s"
        if len(updates) < self.plan.least:
            reasons = "; ".join(f"{who}: {why}" for who, why in sorted(left_out.items()))
            raise DataError(
                f"{len(updates)} of {len(turns)} clients have given an update, and {self.plan.least} must: {reasons}",
                hint="mend the clients, give them more time (timeout), or ask for fewer (least)",
            )
        return updates, dict(sorted(left_out.items()))

    def _take(
        self,
        reference: Any,
        number: int,
        parameters: Parameters,
        updates: dict[int, Update],
        left_out: dict[str, str],
    ) -> None:
        """An answer: among the updates if it is one, else among those who are left out."""
        name = self.names[number]
        try:
            answer = self.ray.get(reference)
            if isinstance(answer, str):
                left_out[name] = answer
            else:
                updates[number] = checked(answer, parameters, name)
        except NoriaError as error:
            left_out[name] = error.message
        except self.ray.exceptions.RayActorError:
            left_out[name] = "its process has died"
        except self.ray.exceptions.RayError as error:
            left_out[name] = f"its process has failed with {type(cause(error)).__name__}"

    def _at_work(self, turns: Mapping[int, Turn]) -> list[int]:
        """Clients who were late, and haven't ended yet; what the others were late with is forgotten."""
        ended = [number for number, reference in self._late.items() if self.ray.wait([reference], timeout=0)[0]]
        for number in ended:
            del self._late[number]
        return [number for number in self._late if number in turns]
