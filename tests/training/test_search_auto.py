from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

import noria as nr
from noria.core import ConfigError
from noria.training.search.contest import some_rows
from noria.training.search.families import FAMILIES
from noria.training.search.folds import fold_of

sys.path.insert(0, str(Path(__file__).parent))
from search_lessons import lesson

pytest.importorskip("optuna")
QUICK = ["linear", "extra_trees", "hist_boosting"]


@pytest.fixture(autouse=True)
def small_models(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("noria.training.search.families.TREES", 10)
    monkeypatch.setattr("noria.training.search.families.ROUNDS", 40)
    with threadpool_limits(1):  # threads that wait for each other cost more than so few rows
        yield


@pytest.mark.parametrize(
    ("kind", "metric"),
    [("two", "roc_auc"), ("two", "log_loss"), ("two", "accuracy"), ("three", "accuracy"), ("numbers", "rmse")],
)
def test_picks_a_model_that_beats_the_baseline(kind: str, metric: str) -> None:
    learned = nr.Auto(trials=5, families=QUICK, folds=2).learn(lesson(kind, metric=metric, text=True))
    notes = learned.notes["search"]
    assert notes["chosen"] == notes["leaderboard"][0]["model"] in QUICK
    assert notes["leaderboard"][-1]["model"] in ("majority", "mean", "median")
    assert sum(notes["trials"].values()) == 5
    matrix = learned.inputs.matrix(lesson(kind, text=True).inputs)
    assert len(learned.estimator.predict(matrix)) == 240


def test_every_family_learns_every_kind() -> None:
    names = [family.name for family in FAMILIES if not family.missing()]
    for kind in ("two", "three", "numbers"):
        notes = nr.Auto(trials=len(names), folds=1).learn(lesson(kind, rows=120)).notes["search"]
        tried = {row["model"]: row for row in notes["leaderboard"] if "trials" in row}
        assert set(tried) == set(names)
        assert notes["trials"] == {"complete": len(names)}, notes["history"]


@pytest.mark.parametrize("kind", ["two", "three"])
def test_classes_may_be_words_and_judged_by_their_probabilities(kind: str) -> None:
    names = [family.name for family in FAMILIES if not family.missing()]
    numbers = lesson(kind, rows=120, metric="log_loss")
    words = replace(numbers, target=np.array(["high", "low", "mid"])[numbers.target])
    searched = [
        nr.Auto(trials=len(names), folds=1, families=names).learn(each).notes["search"] for each in (numbers, words)
    ]
    assert searched[1]["trials"] == {"complete": len(names)}, searched[1]["history"]
    scores = [[row["score"] for row in one["history"] if row["model"] == "lightgbm"] for one in searched]
    assert scores[0] == scores[1]


def test_if_every_trial_fails_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noria.training.search.trial.probabilities", lambda *_: None)
    notes = nr.Auto(trials=1, folds=1, families=["linear"]).learn(lesson(metric="log_loss")).notes["search"]
    assert notes["chosen"] == "majority"
    assert "every trial failed" in notes["note"]
    assert "needs probabilities" in notes["note"]


def test_the_same_seed_and_number_of_trials_give_the_same_model() -> None:
    def model(seed: int) -> tuple[list[Any], Any]:
        given = lesson(seed=seed)
        learned = nr.Auto(trials=7, families=QUICK, folds=2).learn(given)
        history = [{k: v for k, v in one.items() if k != "seconds"} for one in learned.notes["search"]["history"]]
        return history, learned.estimator.predict(learned.inputs.matrix(given.inputs)).tolist()

    assert model(1) == model(1)
    assert model(1) != model(2)


def test_goes_on_where_it_was(tmp_path: Path) -> None:
    auto = nr.Auto(trials=6, families=["linear", "extra_trees"], folds=2)
    whole = auto.learn(lesson()).notes["search"]
    nr.Auto(trials=3, families=["linear", "extra_trees"], folds=2).learn(lesson(directory=tmp_path))
    again = auto.learn(lesson(directory=tmp_path)).notes["search"]
    assert [one["parameters"] for one in again["history"]] == [one["parameters"] for one in whole["history"]]


def test_says_so_when_nothing_beats_the_baseline() -> None:
    noise = lesson()
    random = np.random.default_rng(0)
    inputs = noise.inputs.with_columns(**{name: random.normal(size=240) for name in noise.inputs.columns})
    target = (np.arange(240) % 10 == 0).astype(int)
    given = lesson(metric="accuracy")
    blind = type(given)(inputs, target, given.schema, metric="accuracy", seed=1)
    learned = nr.Auto(trials=4, families=QUICK, folds=2).learn(blind)
    assert learned.notes["search"]["chosen"] == "majority"
    assert "nothing was better than the baseline" in learned.notes["search"]["note"]
    assert set(learned.estimator.predict(np.zeros((3, 4)))) == {0}


def test_minutes_too_short_for_a_single_fit_give_the_baseline() -> None:
    ticks = iter(range(10_000))
    auto = nr.Auto(minutes=0.001, families=["linear"], folds=2, clock=lambda: float(next(ticks)))
    notes = auto.learn(lesson()).notes["search"]
    assert notes["chosen"] == "majority"
    assert "the minutes were too short for a single trial" in notes["note"]


def test_few_rows_are_fitted_if_there_is_no_time_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noria.training.search.contest.PILOT", 50)
    monkeypatch.setattr("noria.training.search.contest.Contest._has_time", lambda *_: False)
    learned = nr.Auto(minutes=0.05, families=["extra_trees"], folds=2).learn(lesson())
    assert learned.notes["search"]["chosen"] == "extra_trees"
    assert "fitted to" in learned.notes["search"]["note"]


def test_some_rows_keep_every_class() -> None:
    given = lesson("three")
    learn = np.arange(240) % 2 == 0
    few = some_rows(fold_of(given, learn, ~learn), 3, 0)
    assert sorted(few.y) == [0, 1, 2]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: nr.Auto(families=["forest"]), "unknown family 'forest'"),
        (lambda: nr.Auto(metric="auc"), "unknown metric 'auc'"),
        (lambda: nr.Auto(minutes=0), "no time"),
        (lambda: nr.Auto(trials=1).learn(lesson("numbers", metric="roc_auc")), "judges classes"),
        (lambda: nr.Auto(trials=1).learn(lesson("three", metric="roc_auc")), "needs two classes"),
        (
            lambda: nr.Auto("rmse", trials=1).learn(
                lesson("two")
                .part(np.ones(240, bool))
                .__class__(lesson().inputs, np.array(["a", "b"] * 120), lesson().schema)
            ),
            "judges numbers",
        ),
    ],
)
def test_mistakes(wrong: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        wrong()


def test_families_whose_library_is_missing_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from noria.training.search import families

    real = families.find_spec
    monkeypatch.setattr(families, "find_spec", lambda name: None if name in ("lightgbm", "catboost") else real(name))
    notes = nr.Auto(trials=2, families=["lightgbm", "catboost", "linear"], folds=1).learn(lesson()).notes["search"]
    assert notes["left_out"]["lightgbm"] == "lightgbm is not installed"
    with pytest.raises(ConfigError, match="no family can be tried"):
        nr.Auto(trials=2, families=["lightgbm"]).learn(lesson())
