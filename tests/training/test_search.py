from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import noria as nr
from noria.core import ConfigError, DataError, MissingExtraError, Schema
from noria.training.learner import Lesson
from noria.training.search.folds import fold_of, masks
from noria.training.search.journal import FILE, Study, open_storage
from noria.training.search.report import ENOUGH, bars, is_worse
from noria.training.search.spaces import Draws
from noria.training.search.trial import Trial
from noria.training.search.tuning import Tuned

sys.path.insert(0, str(Path(__file__).parent))
from search_lessons import lesson

pytest.importorskip("optuna")

TREE = DecisionTreeClassifier(max_depth=1, random_state=0)
DEPTH = {"max_depth": nr.integer(1, 8), "criterion": nr.choice("gini", "entropy")}


class Ticks:
    """A clock that moves by a step each time it is read."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


class Moody(RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """Fails with some parameters."""

    def __init__(self, mood: str = "good", level: float = 0.0) -> None:
        self.mood, self.level = mood, level

    def fit(self, X: Any, y: Any) -> Moody:  # noqa: N803
        if self.mood == "bad":
            raise RuntimeError("not today")
        self.mean_ = float(np.mean(y)) + self.level
        return self

    def predict(self, X: Any) -> Any:  # noqa: N803
        return np.full(len(X), np.nan if self.mood == "lost" else self.mean_)


def test_the_best_parameters_are_found_and_fitted_to_all_rows() -> None:
    learned = nr.tune(TREE, DEPTH, trials=12).learn(lesson())
    notes = learned.notes["search"]
    assert learned.estimator.get_params()["max_depth"] == notes["best"]["max_depth"] > 1  # type: ignore[attr-defined]
    assert notes["score"] > notes["given"]
    assert learned.estimator.tree_.n_node_samples[0] == 240  # type: ignore[attr-defined]
    assert len(notes["history"]) == sum(notes["trials"].values()) == 12
    assert all(set(one["parameters"]) == {"max_depth", "criterion"} for one in notes["history"])


def test_the_same_seed_finds_the_same() -> None:
    def history(seed: int) -> list[Any]:
        notes = nr.tune(TREE, DEPTH, trials=14).learn(replace(lesson(), seed=seed)).notes["search"]
        return [{k: v for k, v in one.items() if k != "seconds"} for one in notes["history"]]

    assert history(1) == history(1)
    assert history(1) != history(2)


def test_what_was_given_wins_if_nothing_is_better() -> None:
    good = LogisticRegression(C=1.0)
    notes = nr.tune(good, {"C": nr.log(1e-9, 1e-8)}, trials=3).learn(lesson()).notes["search"]
    assert notes["best"] == {}
    assert notes["note"] == "no trial was better than the estimator as it was given"


def test_spaces_may_be_conditional_and_values_of_any_kind() -> None:
    def space(trial: Draws) -> dict[str, Any]:
        drawn = {"splitter": trial.draw("splitter", nr.choice("best", "random"))}
        if drawn["splitter"] == "best":
            drawn["max_features"] = trial.draw("max_features", nr.choice(None, "sqrt", 2))
        return drawn

    tuned = nr.tune(TREE, space, trials=8)
    assert 'trial.draw("splitter"' in tuned.to_dict()["space"]["function"]
    drawn = [one["parameters"] for one in tuned.learn(lesson()).notes["search"]["history"]]
    assert {len(one) for one in drawn} == {1, 2}


def test_parameters_of_a_pipelines_parts() -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1e-6))
    learned = nr.tune(model, {"logisticregression__C": nr.log(1e-3, 1e3)}, trials=4).learn(lesson())
    assert learned.estimator.get_params()["logisticregression__C"] > 1e-3  # type: ignore[attr-defined]


def test_failing_trials_are_recorded_and_end_nothing() -> None:
    moods = {"mood": nr.choice("good", "bad", "lost"), "level": nr.uniform(-1.0, 1.0)}
    notes = nr.tune(Moody(level=5.0), moods, trials=12).learn(lesson("numbers")).notes["search"]
    reasons = {one["reason"] for one in notes["history"] if one.get("end") == "failed"}
    assert "RuntimeError: not today" in reasons
    assert len(reasons) == 2
    assert notes["trials"]["failed"] + notes["trials"].get("pruned", 0) + notes["trials"]["complete"] == 12
    assert notes["best"]["mood"] == "good"


def test_all_trials_failing_is_an_error() -> None:
    with pytest.raises(DataError, match="all 4 trials failed; the first one: RuntimeError: not today"):
        nr.tune(Moody("bad"), {"level": nr.uniform(0, 1)}, trials=3).learn(lesson("numbers"))


def test_minutes_end_a_search() -> None:
    tuned = Tuned(TREE, DEPTH, None, minutes=1.0, clock=Ticks(0.5))
    notes = tuned.learn(lesson()).notes["search"]
    assert 2 < len(notes["history"]) < 40
    assert notes["seconds"] <= 62


def test_minutes_too_short_for_one_trial_leave_the_estimator_as_it_was() -> None:
    learned = Tuned(TREE, DEPTH, minutes=0.001, clock=Ticks(1.0)).learn(lesson())
    assert learned.notes["search"]["note"].startswith("the minutes were too short")
    assert learned.estimator.max_depth == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("wrong", "message", "hint"),
    [
        (lambda: nr.tune(TREE, {}), "the space to search is empty", "nr.log"),
        (lambda: nr.tune(TREE, {"max_dept": nr.integer(1, 2)}), "no parameter 'max_dept'", "did you mean 'max_depth'"),
        (lambda: nr.tune(TREE, {"max_depth": 3}), "which is no space", "nr.integer"),
        (lambda: nr.tune(TREE, DEPTH, trials=None), "never end", "minutes=5"),
        (lambda: nr.tune(TREE, DEPTH, trials=0), "no number of trials", "1 and more"),
        (lambda: nr.tune(TREE, DEPTH, minutes=-1), "no time", "above 0"),
        (lambda: nr.tune(TREE, DEPTH, pruning="some"), "unknown pruning 'some'", "halving, median"),
        (lambda: nr.tune(object(), {"a": nr.integer(1, 2)}), "no parameters that can be set", "get_params"),
        (lambda: nr.log(0, 1), "can't begin at 0", "above 0"),
        (lambda: nr.uniform(2, 1), "nothing in it", "lower"),
        (lambda: nr.uniform(0, float("inf")), "has no end", "two numbers"),
        (lambda: nr.integer(1, 2.5), "no whole number", "nr.uniform"),  # type: ignore[arg-type]
        (lambda: nr.choice(), "choice\\(\\) of nothing", "nr.choice"),
        (lambda: nr.tune(TREE, DEPTH, folds=0).learn(lesson()), "too few", "allowed: 1"),
        (lambda: nr.tune(TREE, DEPTH).learn(lesson(rows=2)), "too few for 3 folds", "fewer folds"),
        (
            lambda: nr.tune(RidgeClassifier(), {"alpha": nr.log(1, 2)}).learn(lesson(metric="roc_auc")),
            "RidgeClassifier doesn't give",
            "predict_proba",
        ),
    ],
)
def test_mistakes_say_what_is_allowed(wrong: Any, message: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        wrong()
    assert hint in raised.value.hint


def test_without_optuna_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna.storages", None)
    with pytest.raises(MissingExtraError, match=r"noria\[tune\]"):
        nr.tune(TREE, DEPTH).learn(lesson())


@given(st.lists(st.integers(0, 12), min_size=4, max_size=60), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_folds_by_time_never_learn_from_what_comes_later(times: list[int], count: int) -> None:
    at = np.array(times, np.int64)
    frame = pl.DataFrame({"x": np.zeros(len(at))})
    given = Lesson(frame, np.zeros(len(at)), Schema.of({"x": "float64"}), times=at)
    try:
        found = masks(given, count, is_regression=True)
    except ConfigError:
        return
    judged = np.zeros(len(at), int)
    for learn, judge in found:
        assert at[learn].max() < at[judge].min()
        judged += judge
    assert judged.max() == 1
    assert len(found) <= count


def test_folds_keep_entities_together_and_classes_alike() -> None:
    whose = np.arange(240) % 30
    for learn, judge in masks(replace(lesson(), entities=whose), 3, is_regression=False):
        assert not set(whose[learn]) & set(whose[judge])
    shares = [lesson().target[judge].mean() for _, judge in masks(lesson(), 3, is_regression=False)]
    assert max(shares) - min(shares) < 0.02


def test_steps_are_fitted_inside_each_fold() -> None:
    given = lesson("numbers")
    learn = np.arange(len(given)) < 120
    fold = fold_of(replace(given, steps=[nr.Normalize()]), learn, ~learn)
    assert np.allclose(fold.x.mean(axis=0), 0)
    assert not np.allclose(fold.judging_x.mean(axis=0), 0, atol=1e-3)


@pytest.mark.parametrize(("rule", "bar"), [("median", 0.6), ("halving", 0.733333)])
def test_bars(rule: str, bar: float) -> None:
    histories = [{3: value} for value in (0.2, 0.4, 0.6, 0.8, 1.0)]
    assert len(histories) == ENOUGH
    assert bars(rule, histories, greater_is_better=True)[3] == pytest.approx(bar)
    mirrored = [{3: -step[3]} for step in histories]
    assert bars(rule, mirrored, greater_is_better=False)[3] == pytest.approx(-bar)
    assert bars(rule, histories[1:], greater_is_better=True) == {} == bars("", histories, greater_is_better=True)
    assert is_worse(0.5, 0.6, greater_is_better=True)
    assert not is_worse(0.5, None, greater_is_better=True)


def boosting(library: str) -> Any:
    module = pytest.importorskip(library)
    rounds = 60
    if library == "lightgbm":
        return module.LGBMClassifier(n_estimators=rounds, n_jobs=1, verbose=-1, min_child_samples=5)
    if library == "xgboost":
        return module.XGBClassifier(n_estimators=rounds, n_jobs=1)
    return module.CatBoostClassifier(iterations=rounds, thread_count=1, verbose=False, allow_writing_files=False)


@pytest.mark.parametrize("library", ["lightgbm", "xgboost"])
def test_boosting_is_pruned_by_rounds(library: str) -> None:
    space = {"learning_rate": nr.log(1e-3, 0.5)}
    notes = nr.tune(boosting(library), space, trials=14).learn(lesson(metric="roc_auc")).notes["search"]
    assert notes["trials"]["pruned"] >= 2
    unpruned = nr.tune(boosting(library), space, trials=8, pruning=False).learn(lesson(metric="roc_auc"))
    assert unpruned.notes["search"]["trials"] == {"complete": 8}


@pytest.mark.parametrize("metric", ["roc_auc", "accuracy"])
def test_xgboost_is_tuned_for_classes_that_are_words(metric: str) -> None:
    numbers, space = lesson(metric=metric), {"learning_rate": nr.log(1e-3, 0.5)}
    words = replace(numbers, target=np.array(["no", "yes"], object)[numbers.target.astype(int)])
    found = [nr.tune(boosting("xgboost"), space, trials=5).learn(each).notes["search"] for each in (numbers, words)]
    ends, ours = ([(row.get("end"), row.get("score")) for row in one["history"]] for one in found)
    assert ends == ours


def test_a_bar_ends_boosting_at_its_first_rung() -> None:
    given = lesson(metric="roc_auc")
    half = np.arange(len(given)) < 120
    fold = fold_of(given, half, ~half)
    for library in ("lightgbm", "xgboost"):
        report = Trial("roc_auc").run(lambda library=library: boosting(library), [fold], {0: 1.1})
        assert (report.end, list(report.steps)) == ("pruned", [0])
        full = Trial("roc_auc", patience=5).run(lambda library=library: boosting(library), [fold])
        assert (full.end, len(full.rounds)) == ("complete", 1)
        assert 1 <= full.rounds[0] <= 60


@pytest.mark.parametrize("library", ["lightgbm", "xgboost", "catboost"])
def test_boosting_ends_when_its_time_is_over(library: str) -> None:
    given = lesson()
    half = np.arange(len(given)) < 120
    fold = fold_of(given, half, ~half)
    assert Trial("accuracy", clock=Ticks(1.0)).run(lambda: boosting(library), [fold], seconds=20).end == "out of time"
    stopped = Trial("accuracy", patience=50, clock=Ticks(1.0)).run(lambda: boosting(library), [fold], each=20.0)
    assert stopped.end == "complete"
    assert stopped.rounds[0] < 30


def test_catboost_has_parameters_that_it_doesnt_list() -> None:
    notes = nr.tune(boosting("catboost"), {"learning_rate": nr.log(1e-3, 0.5)}, trials=2).learn(lesson()).notes
    assert notes["search"]["trials"] == {"complete": 2}
    with pytest.raises(ConfigError, match="no parameter 'rate'"):
        nr.tune(boosting("catboost"), {"rate": nr.log(1e-3, 0.5)})


def test_a_journal_that_was_cut_in_a_line_is_mended(tmp_path: Path) -> None:
    tuned = nr.tune(Ridge(), {"alpha": nr.log(1e-3, 10)}, trials=5)
    given = lesson("numbers", directory=tmp_path)
    whole = tuned.learn(given).notes["search"]
    lines = (tmp_path / FILE).read_bytes()
    told = [i for i in range(len(lines)) if lines.startswith(b'"state":1', i)]
    (tmp_path / FILE).write_bytes(lines[: told[3] + 4])  # in the middle of the fourth trial's last line
    (tmp_path / f"{FILE}.lock").symlink_to("nobody")
    again = tuned.learn(given).notes["search"]
    assert [one["parameters"] for one in again["history"]] == [one["parameters"] for one in whole["history"]]
    assert [one["score"] for one in again["history"]] == [one["score"] for one in whole["history"]]


def test_a_trial_that_was_cut_off_keeps_its_number_and_parameters(tmp_path: Path) -> None:
    study = Study(open_storage(tmp_path), "tune", seed=3, greater_is_better=False)
    drawn = study.begin().draw("alpha", nr.log(1e-3, 10))
    again = Study(open_storage(tmp_path), "tune", seed=3, greater_is_better=False)
    assert again.cut_off == [0]
    assert again.begin(0).draw("alpha", nr.log(1e-3, 10)) == drawn
    notes = nr.tune(Ridge(), {"alpha": nr.log(1e-3, 10)}, trials=2).learn(lesson("numbers", directory=tmp_path)).notes
    assert [one["trial"] for one in notes["search"]["history"]] == [0, 1]


def test_progress_tells_the_best_so_far() -> None:
    class Watch:
        def __init__(self) -> None:
            self.steps, self.notes = 0, list[str]()

        def begin(self, task: str, total: int | None = None) -> None:
            assert (task, total) == ("late: tune Ridge", 3)

        def advance(self, task: str, steps: int = 1, note: str = "") -> None:
            self.steps += steps
            self.notes.append(note)

        def end(self, task: str, note: str = "") -> None:
            pass

    watch = Watch()
    nr.tune(Ridge(), {"alpha": nr.log(1e-3, 10)}, trials=3).learn(lesson("numbers", progress=watch, name="late"))
    assert watch.steps == 3
    assert watch.notes[-1].startswith("best rmse 1.")
