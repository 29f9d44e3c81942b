from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from noria.core import ConfigError
from noria.training.answers import Answers
from noria.training.bootstrap import Rows, Task, intervals, metric_tasks
from noria.training.metrics import METRICS, judge

CLASSES = tuple(name for name, metric in METRICS.items() if metric.of == "classes")
NUMBERS = tuple(name for name, metric in METRICS.items() if metric.of == "numbers")


def close(found: float, wanted: Any) -> None:
    assert found == pytest.approx(float(wanted), rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(2, 60),
    digits=st.integers(1, 6),
    kind=st.sampled_from(["int", "bool", "text"]),
    weighted=st.booleans(),
    seed=st.integers(0, 10_000),
)
def test_two_classes_as_scikit_learn(rows: int, digits: int, kind: str, weighted: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = np.round(random.random(rows), digits)
    names: NDArray[Any] = {
        "int": np.array([0, 1]),
        "bool": np.array([False, True]),
        "text": np.array(["no", "yes"], object),
    }[kind]
    drawn = random.integers(0, 2, rows)
    drawn[:2] = 0, 1
    truth, predicted, positive = names[drawn], names[(scores > 0.5).astype(int)], names[1]
    weights = random.random(rows) + 0.01 if weighted else None
    given = {"sample_weight": weights}

    found = judge(CLASSES, truth, predicted, scores, weights=weights)

    close(found["accuracy"], sk.accuracy_score(truth, predicted, **given))
    close(found["balanced_accuracy"], sk.balanced_accuracy_score(truth, predicted, **given))
    for name, wanted in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
        close(found[name], wanted(truth, predicted, pos_label=positive, zero_division=0.0, **given))
    close(found["roc_auc"], sk.roc_auc_score(truth == positive, scores, **given))
    close(found["pr_auc"], sk.average_precision_score(truth == positive, scores, **given))
    close(found["log_loss"], sk.log_loss(truth == positive, np.column_stack([1 - scores, scores]), **given))
    close(found["brier"], sk.brier_score_loss(truth == positive, scores, **given))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(8, 60), classes=st.integers(3, 5), weighted=st.booleans(), seed=st.integers(0, 10_000))
def test_more_classes_as_scikit_learn(rows: int, classes: int, weighted: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    names = np.array(["ant", "bee", "cow", "dog", "eel"][:classes], object)
    drawn = random.integers(0, classes, rows)
    drawn[:classes] = np.arange(classes)
    chances = random.dirichlet(np.ones(classes), rows)
    truth, predicted = names[drawn], names[chances.argmax(axis=1)]
    weights = random.random(rows) + 0.01 if weighted else None
    given = {"sample_weight": weights}

    found = judge(CLASSES, truth, predicted, chances, classes=names, weights=weights)

    close(found["accuracy"], sk.accuracy_score(truth, predicted, **given))
    for name, wanted in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
        close(found[name], wanted(truth, predicted, average="macro", zero_division=0.0, **given))
    close(found["roc_auc"], sk.roc_auc_score(truth, chances, multi_class="ovr", labels=names, **given))
    one_hot = drawn[:, None] == np.arange(classes)
    close(found["pr_auc"], sk.average_precision_score(one_hot, chances, **given))
    close(found["log_loss"], sk.log_loss(truth, chances, labels=names, **given))
    close(found["brier"], sk.brier_score_loss(truth, chances, labels=names, **given))


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(2, 60), weighted=st.booleans(), seed=st.integers(0, 10_000), far=st.sampled_from([0.0, 1e6]))
def test_numbers_as_scikit_learn(rows: int, weighted: bool, seed: int, far: float) -> None:
    random = np.random.default_rng(seed)
    truth = far + random.normal(size=rows)
    predicted = truth + random.normal(size=rows)
    weights = random.random(rows) + 0.01 if weighted else None
    found = judge(NUMBERS, truth, predicted, weights=weights)
    for name, wanted in (
        ("rmse", sk.root_mean_squared_error),
        ("mae", sk.mean_absolute_error),
        ("r2", sk.r2_score),
        ("mape", sk.mean_absolute_percentage_error),
    ):
        close(found[name], wanted(truth, predicted, sample_weight=weights))


def test_ten_thousand_classes_take_no_more_room_than_their_rows() -> None:
    truth = np.arange(20_000) // 2
    answers = Answers.of(truth, truth[::-1].copy())
    weights = np.random.default_rng(0).integers(0, 3, (50, len(truth))).astype(np.float64)
    tracemalloc.start()
    METRICS["f1"].prepare(answers)(weights)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * weights.nbytes


def test_a_constant_truth_is_explained_or_not() -> None:
    same = np.full(5, 0.1)
    assert judge(("r2",), same, same)["r2"] == 1.0
    assert judge(("r2",), same, same + 1)["r2"] == sk.r2_score(same, same + 1) == 0.0


def test_the_calibration_error_is_the_mean_distance_over_bins_of_equally_many_rows() -> None:
    scores = np.repeat([0.1, 0.6], 50)
    truth = np.concatenate([np.arange(50) % 5 == 0, np.arange(50) % 2 == 0])  # 0.2 and 0.5 of them happen
    close(judge(("calibration_error",), truth, scores > 0.5, scores)["calibration_error"], 0.1)
    perfect = np.random.default_rng(0).random(50_000)
    happened = np.random.default_rng(1).random(50_000) < perfect
    assert judge(("calibration_error",), happened, perfect > 0.5, perfect)["calibration_error"] < 0.01


def test_what_is_not_defined_is_not_a_number() -> None:
    truth, scores = np.zeros(5, np.bool_), np.linspace(0, 1, 5)
    found = judge(CLASSES, truth, scores > 0.5, scores)
    assert {name for name, value in found.items() if np.isnan(value)} == {"roc_auc", "pr_auc"}
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, scores, labels=[False, True]))


@pytest.mark.parametrize(
    ("name", "truth", "message"),
    [
        ("roc_auc", np.array([True, False]), "needs probabilities"),
        ("rmse", np.array(["a", "b"], object), "is of numbers"),
        ("accuracy", np.array([0.5, 1.5]), "is of classes"),
        ("acuracy", np.array([True, False]), "did you mean"),
    ],
)
def test_a_metric_that_can_not_judge_says_so(name: str, truth: NDArray[Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        judge((name,), truth, truth)
    assert message in str(caught.value)


def test_every_metric_gives_a_resample_what_it_gives_the_repeated_rows() -> None:
    """Weights that are counts, for many sets at once, are the same as rows that are there more than once."""
    random = np.random.default_rng(4)
    counts = random.integers(0, 3, (3, 40)).astype(np.float64)
    scores = np.round(random.random(40), 1)
    two = Answers.of(random.random(40) < 0.5, scores > 0.5, scores)
    numbers = Answers(random.normal(size=40), random.normal(size=40))
    for name, metric in METRICS.items():
        if name == "calibration_error":  # its bins are of all rows
            continue
        answers = two if metric.of == "classes" else numbers
        for values, chosen in zip(metric.prepare(answers)(counts), counts, strict=True):
            close(float(values), metric.value(answers.take(np.repeat(np.arange(40), chosen.astype(int)))))


def covered(make: Any, name: str, true: float, times: int = 400) -> float:
    """How often the interval has the true value."""
    hits = 0
    for seed in range(times):
        answers, rows = make(seed)
        (found,), _ = intervals(metric_tasks([name], answers), rows, most=400, most_rows=2_000)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= true <= found.high
    return hits / times


def normal_scores(rows: int) -> Any:
    def make(seed: int) -> tuple[Answers, Rows]:
        random = np.random.default_rng(seed)
        truth = random.random(rows) < 0.4
        scores = 1 / (1 + np.exp(-random.normal(truth * 1.0, 1.0)))
        return Answers.of(truth, scores > 0.5, scores), Rows(rows, seed=seed)

    return make


def test_an_interval_has_the_true_value_about_95_times_in_100() -> None:
    from scipy.stats import norm

    assert 0.92 < covered(normal_scores(300), "roc_auc", norm.cdf(1 / np.sqrt(2))) < 0.98
    true_accuracy = 0.6 * norm.cdf(0.0) + 0.4 * norm.cdf(1.0)
    assert 0.92 < covered(normal_scores(300), "accuracy", true_accuracy) < 0.98
    # A part of the rows is drawn, and its spread scaled to all of them.
    assert 0.92 < covered(normal_scores(6_000), "roc_auc", norm.cdf(1 / np.sqrt(2)), 200) < 0.98


def test_rows_of_an_entity_are_drawn_together() -> None:
    def make(seed: int, together: bool) -> tuple[Answers, Rows]:
        random = np.random.default_rng(seed)
        units = np.repeat(np.arange(100), 10)
        errors = random.normal(size=100)[units] + 0.3 * random.normal(size=1000)
        return Answers(np.zeros(1000), errors), Rows(1000, units if together else None, seed=seed)

    true = np.sqrt(1.09)
    assert 0.90 < covered(lambda seed: make(seed, True), "rmse", true) < 0.98
    assert covered(lambda seed: make(seed, False), "rmse", true) < 0.7  # as if there were ten times as many


def test_an_interval_never_says_that_there_are_no_errors() -> None:
    right = Answers(np.arange(50) % 2, np.arange(50) % 2)
    (found,), _ = intervals(metric_tasks(["accuracy"], right), Rows(50))
    assert (found.value, found.low, found.high) == (1.0, pytest.approx(0.94), 1.0)


def test_a_difference_is_drawn_from_the_same_rows() -> None:
    """Two models that err together differ by much less than either of them is uncertain."""
    random = np.random.default_rng(0)
    truth, noise = np.zeros(500), random.normal(size=500)
    tasks = [Task(METRICS["rmse"], Answers(truth, noise)), Task(METRICS["rmse"], Answers(truth, noise * 1.01))]
    (one, other), (difference,) = intervals(tasks, Rows(500), minus=[(1, 0)])
    assert one.high is not None
    assert other.low is not None
    assert difference.low is not None
    assert other.low < one.high  # the intervals overlap
    assert difference.low > 0  # and yet one is better


def test_the_same_seed_gives_the_same_interval() -> None:
    answers, rows = normal_scores(200)(1)
    assert intervals(metric_tasks(["f1"], answers), rows) == intervals(metric_tasks(["f1"], answers), rows)
