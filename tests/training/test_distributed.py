"""Training on partitions by a real Ray on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import polars as pl
import pytest
import xgboost
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import roc_auc_score

import noria as nr
from noria.core import DataError, NoProgress, Schema, Settings
from noria.registry import ModelRegistry
from noria.serving import load_servable
from noria.storage import Workspace
from noria.training.categorical import library_model
from noria.training.distributed import crew
from noria.training.distributed.parameters import Shape, Turn, combine, turn_seed
from noria.training.distributed.partitions import by_rows, cut
from noria.training.distributed.strategy import trainee
from noria.training.fast import fast_predictor
from noria.training.learner import Lesson, fit_once

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own

NAMES = [f"x{number}" for number in range(6)]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    import ray

    from noria.pipelines.ray_compute import connect

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        connect("ray")
        yield
        ray.shutdown()


def lesson(rows: int = 3000, **more: Any) -> Lesson:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(rows, len(NAMES)))
    target = matrix @ [2.0, -1.0, 0.5, 0.0, 0.0, 1.0] + matrix[:, 0] * matrix[:, 1] + random.normal(size=rows) > 0
    return Lesson(
        pl.DataFrame(matrix, schema=NAMES), target, Schema.of(dict.fromkeys(NAMES, "float64")), seed=1, **more
    )


TAUGHT = lesson()
MATRIX, TARGET = TAUGHT.inputs.to_numpy(), TAUGHT.target


def quality(estimator: Any) -> float:
    random = np.random.default_rng(9)
    matrix = random.normal(size=(2000, len(NAMES)))
    truth = matrix @ [2.0, -1.0, 0.5, 0.0, 0.0, 1.0] + matrix[:, 0] * matrix[:, 1] > 0
    return float(roc_auc_score(truth, estimator.predict_proba(matrix)[:, 1]))


SGD = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.05)


def test_averaging_is_what_it_says_and_has_no_regard_for_workers() -> None:
    plan = nr.Average(rounds=3, epochs=2)
    learned = nr.DistributedTraining(SGD, plan, partitions=5).learn(TAUGHT)
    again = nr.DistributedTraining(SGD, plan, partitions=5, workers=1).learn(TAUGHT)

    partition, shape = by_rows(TARGET, 5, 1), Shape(len(NAMES), np.unique(TARGET))
    found = trainee(SGD)
    assert found is not None
    parameters = found.start(shape, 1)
    for number in range(3):
        updates = {
            part: found.improve(
                parameters,
                cut(MATRIX, TARGET, None, partition, part),
                shape,
                Turn(number, 2, turn_seed(1, number, part)),
            )
            for part in range(5)
        }
        parameters = combine(parameters, updates, None)
    for one in (learned, again):
        estimator: Any = one.estimator
        assert np.array_equal(estimator.coef_, parameters["coef"])
        assert np.array_equal(estimator.intercept_, parameters["intercept"])
    assert learned.notes == again.notes
    assert learned.notes["distributed"]["partitions"] == [600] * 5
    assert quality(learned.estimator) > quality(fit_once(SGD, TAUGHT).estimator) - 0.01


def test_models_that_are_solved_are_averaged_once() -> None:
    learned = nr.DistributedTraining(LogisticRegression(), nr.Average(rounds=1), partitions=3, workers=1).learn(TAUGHT)
    central: Any = fit_once(LogisticRegression(), TAUGHT).estimator
    assert np.allclose(learned.estimator.predict_proba(MATRIX), central.predict_proba(MATRIX), atol=0.03)  # type: ignore[attr-defined]
    assert fast_predictor(learned.estimator) is not None


def test_forests_become_one_forest() -> None:
    forest = RandomForestClassifier(10, min_samples_leaf=5)
    learned: Any = nr.DistributedTraining(forest, "vote", partitions=4, workers=1).learn(TAUGHT).estimator
    assert type(learned) is RandomForestClassifier
    assert len(learned.estimators_) == learned.n_estimators == 10
    assert learned.random_state is None
    assert fast_predictor(learned) is not None
    assert quality(learned) > quality(fit_once(forest, TAUGHT).estimator) - 0.02


def test_other_models_vote_or_are_stacked() -> None:
    model = HistGradientBoostingClassifier(max_iter=15)
    central = quality(fit_once(model, TAUGHT).estimator)
    timed = replace(TAUGHT, times=np.arange(len(TAUGHT))[::-1].astype(np.int64))
    for strategy in ("vote", nr.Stack(held_out=0.25)):
        learned = nr.DistributedTraining(model, strategy, partitions=3, workers=1).learn(timed)
        assert quality(learned.estimator) > central - 0.03
        assert set(learned.estimator.predict(MATRIX[:50])) == {True, False}
    assert learned.notes["distributed"]["held_out"] == 750
    numbers = replace(TAUGHT, target=MATRIX[:, 0] * 2)
    voted = nr.DistributedTraining(HistGradientBoostingRegressor(max_iter=15), "vote", partitions=3, workers=1).learn(
        numbers
    )
    assert np.corrcoef(voted.estimator.predict(MATRIX), numbers.target)[0, 1] > 0.95


@pytest.mark.parametrize(
    "model",
    [
        lightgbm.LGBMClassifier(n_estimators=15, num_leaves=7, verbosity=-1),
        xgboost.XGBClassifier(n_estimators=15, max_depth=3),
    ],
    ids=["lightgbm", "xgboost"],
)
def test_boosting_over_workers_is_nearly_the_central_model(model: Any) -> None:
    learned = nr.DistributedTraining(model, partitions=4, workers=2).learn(TAUGHT)
    assert learned.notes["distributed"]["workers"] == 2
    central: Any = fit_once(model, TAUGHT).estimator
    distributed: Any = learned.estimator
    apart = np.abs(distributed.predict_proba(MATRIX)[:, 1] - central.predict_proba(MATRIX)[:, 1])
    assert apart.mean() < 0.03
    assert abs(quality(distributed) - quality(central)) < 0.01
    assert fast_predictor(distributed) is not None
    assert "machines" not in library_model(distributed).get_params()


def test_boosting_over_workers_takes_classes_that_are_words() -> None:
    words = np.where(TARGET, "yes", "no").astype(object)
    model = xgboost.XGBClassifier(n_estimators=5, max_depth=3)
    learned: Any = nr.DistributedTraining(model, partitions=2, workers=1).learn(replace(TAUGHT, target=words)).estimator
    assert learned.classes_.tolist() == ["no", "yes"]
    assert (learned.predict(MATRIX) == words).mean() > 0.85


def test_a_partition_of_one_class_is_told() -> None:
    owners = np.where(TARGET, 7, np.arange(len(TARGET)) % 7)
    owned = replace(TAUGHT, entities=owners)
    for model, strategy in ((HistGradientBoostingClassifier(), "vote"), (LogisticRegression(), nr.Average(rounds=1))):
        with pytest.raises(DataError, match="has only the class"):
            nr.DistributedTraining(model, strategy, partitions=2, by="entity").learn(owned)
    # What learns by steps has no need of it.
    learned = nr.DistributedTraining(
        SGD, nr.Average(rounds=5, proximal=0.1), partitions=2, by="entity", workers=1
    ).learn(owned)
    assert quality(learned.estimator) > 0.9


def test_what_a_library_refuses_names_the_partition() -> None:
    gaps = MATRIX.copy()
    gaps[5, 2] = np.nan
    with pytest.raises(DataError, match=r"partition \d .* can't be trained on: .*NaN"):
        nr.DistributedTraining(SGD, partitions=2, workers=1).learn(
            replace(TAUGHT, inputs=pl.DataFrame(gaps, schema=NAMES))
        )
    with pytest.raises(DataError, match="12 rows can't fill 20 partitions"):
        nr.DistributedTraining(SGD, partitions=20).learn(TAUGHT.part(np.arange(len(TAUGHT)) < 12))


def test_a_pipelines_model_may_be_trained_so(tmp_path: Path) -> None:
    TAUGHT.inputs.with_columns(good=pl.Series(TARGET)).write_csv(tmp_path / "rows.csv")
    source = nr.Source("rows", "rows.csv", schema={**dict.fromkeys(NAMES, "float64"), "good": "bool"})
    training = nr.DistributedTraining(SGD, nr.Average(rounds=2), partitions=4, workers=1)
    pipeline = nr.ModelTrainingPipeline(
        "good", labels=source, target="good", features=NAMES, model=training, split=nr.RandomSplit()
    )
    with Workspace.open(Settings(tmp_path)) as workspace:
        report = nr.System("shop", [source, pipeline]).run(workspace)
        assert not report.failed
        version = ModelRegistry.of(workspace).get("good")
        assert version.metrics["roc_auc"] > 0.9
        assert version.parameters["model"]["strategy"]["name"] == "average"
        servable = load_servable(version, workspace)
        request = servable.decode("predict", msgspec.json.encode({"instances": [dict.fromkeys(NAMES, 1.0)]}))
        assert servable.answer("predict", [request])[0].predictions == [True]  # type: ignore[union-attr]


class Watcher(NoProgress):
    """Calls a function once, at the first step."""

    def __init__(self, call: Any) -> None:
        self._call = call

    def advance(self, task: str, steps: int = 1) -> None:
        if steps and self._call is not None:
            call, self._call = self._call, None
            call()


def workers_at_work() -> list[int]:
    """Processes of this test's Ray that are in a call of a worker."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            is_worker = folder.name.isdecimal() and (folder / "cmdline").read_bytes().startswith(b"ray::Worker.do")
            # This process has started Ray's own, which has started the worker.
            if is_worker and _parent(_parent(int(folder.name))) == os.getpid():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def kill_one_soon() -> threading.Thread:
    """Kill a worker that is at work, with signal 9, as soon as there is one."""

    def look() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for process in workers_at_work():
                os.kill(process, signal.SIGKILL)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    return thread


LONG = nr.Average(rounds=4, epochs=10, proximal=0.01)


def test_a_worker_that_is_killed_changes_nothing() -> None:
    training = nr.DistributedTraining(SGD, LONG, partitions=3)
    calm: Any = training.learn(TAUGHT)
    threads: list[threading.Thread] = []
    watched = replace(TAUGHT, progress=Watcher(lambda: threads.append(kill_one_soon())))
    killed: Any = training.learn(watched)
    threads[0].join()
    assert killed.notes["distributed"].pop("workers_lost") == 1
    assert calm.notes["distributed"].pop("workers_lost") == 0
    assert np.array_equal(calm.estimator.coef_, killed.estimator.coef_)
    assert calm.notes == killed.notes


def test_workers_who_need_each_other_begin_again() -> None:
    model = lightgbm.LGBMClassifier(n_estimators=150, num_leaves=31, verbosity=-1)
    training = nr.DistributedTraining(model, partitions=2, workers=2)
    calm: Any = training.learn(TAUGHT).estimator
    thread = kill_one_soon()
    learned = training.learn(TAUGHT)
    thread.join()
    assert learned.notes["distributed"]["workers_lost"] >= 1
    killed: Any = learned.estimator
    assert np.array_equal(calm.predict_proba(MATRIX), killed.predict_proba(MATRIX))


def test_work_that_kills_every_worker_is_given_up() -> None:
    from noria.core import StorageError
    from noria.training.distributed.crew import Crew

    with Crew("ray", 1) as crew, pytest.raises(StorageError, match="5 workers have died of the same work"):
        list(crew.each(os._exit, [(1,)]))


def test_a_worker_who_hangs_when_the_others_are_done_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"

    def hang_once(_: Any, rank: int) -> int:
        if rank == 1 and not mark.exists():
            mark.touch()
            time.sleep(600)
        return rank

    monkeypatch.setattr(crew, "LAST_SECONDS", 1.0)
    with crew.Crew("ray", 2) as workers:
        assert workers.together(hang_once, [(), ()]) == [0, 1]
        assert workers.lost == 1


DRIVER = """
import sys, warnings
warnings.simplefilter("ignore")
from dataclasses import replace
from pathlib import Path
import noria as nr
sys.path.insert(0, sys.argv[2])
import test_distributed as tests
training = nr.DistributedTraining(tests.SGD, tests.LONG, partitions=3, workers=1)
print("ready", flush=True)
learned = training.learn(replace(tests.TAUGHT, directory=Path(sys.argv[1])))
print("done", flush=True)
"""


def test_a_driver_that_is_killed_goes_on_at_the_last_round(tmp_path: Path) -> None:
    kept = tmp_path / "distributed" / "round"
    words = [sys.executable, "-c", DRIVER, str(tmp_path), str(Path(__file__).parent)]
    driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    until = time.monotonic() + 300
    while not kept.exists() and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.002)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert kept.exists()

    done = []

    class Steps(NoProgress):
        def advance(self, task: str, steps: int = 1) -> None:
            done.append(steps)

    training = nr.DistributedTraining(SGD, LONG, partitions=3)
    resumed: Any = training.learn(replace(TAUGHT, directory=tmp_path, progress=Steps()))
    whole: Any = training.learn(TAUGHT)
    assert done[0] >= 1
    assert np.array_equal(resumed.estimator.coef_, whole.estimator.coef_)
    assert resumed.notes == whole.notes
