"""Federated averaging: ten clients with rows unlike each other's, and clients who fail, lie or are late."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import SGDClassifier, SGDRegressor

import noria as nr
from noria.core import ConfigError, DataError, NoProgress
from noria.training.distributed.average import Average, run_rounds, sampled
from noria.training.distributed.checkpoints import Checkpoints
from noria.training.distributed.federated import Client, read
from noria.training.distributed.parameters import Parameters, Shape, Turn, Update
from noria.training.distributed.partitions import Part
from noria.training.distributed.strategy import trainee
from noria.training.estimator import Estimator

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

FEATURES = [f"x{number}" for number in range(8)]
CLASSES = [0, 1]
SGD = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.03, alpha=1e-4)
SIZES = (500, 350, 250, 200, 150, 120, 90, 70, 50, 40)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    from noria.pipelines.ray_compute import connect

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray = connect("ray")
        yield ray
        ray.shutdown()


def client(number: int, rows: int | None = None, skew: float = 0.9) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rows whose place is the client's own, mostly of one class."""
    random = np.random.default_rng([number, rows is None])
    rows = SIZES[number] if rows is None else rows
    wanted = random.choice(CLASSES, rows, p=[skew, 1 - skew] if number % 2 else [1 - skew, skew])
    centres = 0.6 * np.random.default_rng(99).normal(size=(2, len(FEATURES)))
    own = 0.5 * np.random.default_rng(number).normal(size=len(FEATURES))
    return centres[wanted] + own + random.normal(size=(rows, len(FEATURES))), wanted.astype(np.int64)


def together() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    parts = [client(number) for number in range(10)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def held_out() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Other rows of the same clients, as many of each, and of each class."""
    parts = [client(number, 300, 0.5) for number in range(10)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


TEST = held_out()
SHAPE = Shape(len(FEATURES), np.array(CLASSES))


def accuracy(estimator: Any) -> float:
    return float(np.mean(estimator.predict(TEST[0]) == TEST[1]))


class Here:
    """The clients, in this process."""

    def __init__(self, model: Estimator, count: int) -> None:
        self.names = tuple(f"client {number}" for number in range(count))
        self.found: Any = trainee(model)
        self.seen: list[float] = []

    def improve(self, parameters: Parameters, turns: Mapping[int, Turn]) -> tuple[dict[int, Update], dict[str, str]]:
        self.seen.append(accuracy(self.found.finish(parameters, SHAPE)))
        made = {n: self.found.improve(parameters, Part(0, *client(n)), SHAPE, turn) for n, turn in turns.items()}
        return made, {}


def federated(plan: Average, seed: int = 0, count: int = 10) -> list[float]:
    """The accuracy after each round."""
    sites = Here(SGD, count)
    parameters, _ = run_rounds(plan, sites.found, SHAPE, sites, seed, Checkpoints(None, ""), NoProgress())
    return [*sites.seen[1:], accuracy(sites.found.finish(parameters, SHAPE))]


def test_averaging_comes_near_to_training_on_all_rows(capsys: pytest.CaptureFixture[str]) -> None:
    rounds = 10
    central = accuracy(SGDClassifier(loss="log_loss", random_state=0).set_params(**_settings()).fit(*together()))
    alone = [accuracy(SGDClassifier(random_state=0).set_params(**_settings()).fit(*client(n))) for n in range(10)]
    mean = federated(nr.Average(rounds=rounds, epochs=3))
    held = federated(nr.Average(rounds=rounds, epochs=3, proximal=0.3))
    some = federated(nr.Average(rounds=rounds, epochs=3, sample=0.5))
    with capsys.disabled():
        print("\nround    FedAvg   FedProx  FedAvg of half the clients")
        for number in (0, 1, 2, 4, 9):
            print(f"{number + 1:>5} {mean[number]:>9.3f} {held[number]:>9.3f} {some[number]:>9.3f}")
        print(f"central {central:.3f}, alone {min(alone):.3f} to {max(alone):.3f}, mean {np.mean(alone):.3f}")
    assert mean[-1] > central - 0.03
    assert held[-1] > central - 0.04
    assert some[-1] > central - 0.08
    assert mean[-1] > np.mean(alone) + 0.05


def _settings() -> dict[str, Any]:
    return {name: SGD.get_params()[name] for name in ("loss", "learning_rate", "eta0", "alpha")}


def test_clients_are_drawn_by_the_seed() -> None:
    assert sampled(10, 0.3, 1) == sampled(10, 0.3, 1)
    assert len(sampled(10, 0.3, 1)) == 3
    assert sampled(10, 0.01, 5) != []
    assert len({tuple(sampled(10, 0.3, seed)) for seed in range(20)}) > 10
    assert federated(nr.Average(rounds=2, sample=0.4), 3) == federated(nr.Average(rounds=2, sample=0.4), 3)


def load(number: int) -> Any:
    """The function that loads a client's rows, which travels by value."""
    matrix, wanted = client(number)
    return lambda: (matrix, wanted)


def training(clients: dict[str, Any], **options: Any) -> nr.FederatedTraining:
    plan = options.pop("strategy", nr.Average(rounds=2, epochs=1))
    return nr.FederatedTraining(SGD, clients, FEATURES, CLASSES, plan, **options)


def test_clients_in_processes_of_their_own_give_the_same(ray: Any) -> None:
    clients = {f"client {number}": load(number) for number in range(3)}
    plan = nr.Average(rounds=2, epochs=1, sample=0.7)
    made = training(clients, strategy=plan).fit(seed=3)
    assert accuracy(made.estimator) == federated(plan, 3, 3)[-1]
    assert [len(one["took_part"]) for one in made.rounds] == [2, 2]
    assert made.rounds[1]["loss"] < made.rounds[0]["loss"]


def test_who_fails_lies_or_is_late_is_left_out_and_told(ray: Any, tmp_path: Path) -> None:
    matrix, wanted = client(0)

    def slow() -> Any:
        time.sleep(25)
        return matrix, wanted

    def broken() -> Any:
        raise ValueError(f"can't parse {matrix[0].tolist()}")

    def dying() -> Any:
        import os

        os._exit(1)

    clients = {
        "good": load(0),
        "frame": lambda: (pl.DataFrame(matrix, schema=FEATURES)[:, ::-1], wanted),
        "broken": broken,
        "dying": dying,
        "slow": slow,
    }
    made = training(clients, timeout=8.0, least=2).fit(directory=tmp_path)
    told = made.rounds[0]["left_out"]
    assert made.rounds[0]["took_part"] == ["frame", "good"]
    assert told["broken"] == "its rows can't be loaded (ValueError); its own log says more"  # and not the row
    assert told["slow"] == "no answer within 8 s"
    assert told["dying"] == "its process has died"
    assert made.rounds[1]["left_out"]["slow"] == "it is still at work on an earlier round"
    again = training(clients, timeout=8.0, least=2).fit(directory=tmp_path)  # all rounds were done
    assert np.array_equal(made.estimator.coef_, again.estimator.coef_)  # type: ignore[attr-defined]
    with pytest.raises(DataError, match="0 of 1 clients have given an update, and 1 must: broken: its rows"):
        training({"broken": broken}).fit()


def test_clients_have_the_same_features_and_classes() -> None:
    matrix, wanted = client(0)
    gaps = np.where(np.arange(8) == 2, np.nan, matrix)
    names = pl.DataFrame(matrix, schema=[*FEATURES[:7], "y7"])
    found: Any = trainee(SGD)
    for rows, target, message in (
        (matrix[:, :7], wanted, "it has 7 features, and all clients have 8"),
        (names, wanted, "it has no feature 'x7' (1 of 8 are missing)"),
        (matrix, wanted + 1, "it has rows of a class that isn't among the classes"),
        (gaps, wanted, "it has rows with missing or infinite numbers"),
    ):
        side = Client("oslo", lambda rows=rows, target=target: (rows, target), FEATURES, found, SHAPE)  # type: ignore[misc]
        assert side.improve(found.start(SHAPE, 0), Turn(0, 1, 0)) == message


class Poison:
    """A trainee whose update isn't one."""

    def __init__(self, arrays: Any) -> None:
        self._arrays = arrays

    def improve(self, *_: Any) -> Update:
        return Update(self._arrays, 10.0, 0.5)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"coef": np.full((1, 8), np.nan), "intercept": np.zeros(1)}, "not finite"),
        ({"coef": np.zeros((1, 9)), "intercept": np.zeros(1)}, r"float64[1, 9], not float64[1, 8]"),
        ({"coef": np.zeros((1, 8)), "rows": client(9)[0]}, "the parameters coef, rows"),
    ],
)
def test_a_client_sends_parameters_or_nothing(arrays: Any, message: str) -> None:
    """Checked where the rows are, before anything is sent."""
    found: Any = trainee(SGD)
    side = Client("oslo", load(9), FEATURES, Poison(arrays), SHAPE)  # type: ignore[arg-type]
    answer = side.improve(found.start(SHAPE, 0), Turn(0, 1, 0))
    assert isinstance(answer, str)
    assert message in answer


def test_rows_that_do_not_fit_are_refused() -> None:
    matrix, wanted = client(9)
    for rows, target, shape, message in (
        (matrix[:0], wanted[:0], SHAPE, "0 rows"),
        (matrix, wanted[:-1], SHAPE, "40 rows and 39 targets"),
        (matrix[:, 0], wanted, SHAPE, "0 features"),
        (matrix, np.where(wanted == 0, np.nan, 1.0), Shape(8, None), "targets that are missing"),
    ):
        with pytest.raises(DataError, match=message):
            read((rows, target), FEATURES, shape)


def test_wrong_definitions_are_refused_at_once() -> None:
    for options, message in (
        ({"clients": {}}, "needs clients"),
        ({"features": []}, "needs clients"),
        ({"timeout": 0.0}, "above 0 s"),
        ({"least": 2}, "least from 1 to 1"),
        ({"place": {"osla": "machine"}}, "did you mean 'oslo'"),
        ({"model": RandomForestClassifier()}, 'strategy="vote"'),
        ({"features": ["a", "b", "a"]}, "features has 'a' twice"),
        ({"classes": None}, "SGDClassifier tells classes apart"),
        ({"model": SGDRegressor()}, "SGDRegressor predicts numbers"),
    ):
        given: dict[str, Any] = {"model": SGD, "clients": {"oslo": load(0)}, "features": FEATURES, "classes": CLASSES}
        given |= options
        with pytest.raises(ConfigError, match=message):
            nr.FederatedTraining(**given)
