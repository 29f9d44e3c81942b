from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier

import noria as nr
from noria.core import ConfigError, Schema
from noria.training.evaluation import Evaluation, Trial, evaluate, interval_text
from noria.training.learner import Lesson, learn
from noria.training.slices import ByTime, sliced

ROWS = 3_000
DAY = 86_400_000_000
SCHEMA = Schema.of({"x": "float64", "shop": "int64?", "noise": "float64"})


def made(seed: int = 0) -> tuple[pl.DataFrame, np.ndarray[Any, Any]]:
    """Rows of 300 users over 60 days: `x` tells the target, except in shop 3; a user mostly stays as he is."""
    random = np.random.default_rng(seed)
    user, shop, x = random.integers(0, 300, ROWS), random.integers(0, 4, ROWS), random.normal(size=ROWS)
    mood = random.normal(size=300)[user]
    said = np.where(shop == 3, 0.0, 1.5 * x) + 1.5 * mood + random.normal(size=ROWS)
    frame = pl.DataFrame(
        {
            "user": user,
            "at": pl.Series(np.sort(random.integers(0, 60 * DAY, ROWS))).cast(pl.Datetime("us", "UTC")),
            "x": x,
            "shop": pl.Series(shop).set(pl.Series(np.arange(ROWS) % 50 == 0), None),
            "noise": random.normal(size=ROWS),
        }
    )
    return frame, said > 1


def trial(model: Any = None, target: Any = None, **options: Any) -> Trial:
    frame, happened = made()
    target = happened if target is None else target(frame, happened)
    train = np.arange(ROWS) < 2_000
    inputs = options.pop("inputs", SCHEMA.names)
    schema = Schema.of({field.name: field.spec() for field in SCHEMA if field.name in inputs})
    lesson = Lesson(frame.select(inputs), target, schema)
    learned = learn(model or DecisionTreeClassifier(min_samples_leaf=40, random_state=0), lesson.part(train))
    times = frame["at"].dt.timestamp("us").to_numpy()
    given = {
        "metrics": ("roc_auc", "accuracy"),
        "times": times,
        "time": "at",
        "entities": (("user",),),
        **options,
    }
    return Trial(learned, frame, inputs, target, train, ~train, **given)


@pytest.fixture(scope="module")
def judged() -> Evaluation:
    return evaluate(trial())


def test_every_metric_has_an_interval_around_it(judged: Evaluation) -> None:
    assert set(judged.metrics) == {"roc_auc", "accuracy"}
    for one in judged.metrics.values():
        assert one.low is not None
        assert one.high is not None
        assert one.low < one.value < one.high
    assert judged.entity == ("user",)


def test_the_record_is_plain_json_in_the_shape_that_gates_read(judged: Evaluation) -> None:
    record = json.loads(json.dumps(judged.to_dict(), allow_nan=False))
    assert record["metrics"]["roc_auc"].keys() == {"value", "low", "high"}
    part = record["slices"]["shop"]["3"]
    assert part["rows"] > 100
    assert part["roc_auc"].keys() == {"value", "low", "high"}
    assert record["baselines"]["majority"]["roc_auc"] == 0.5


def test_baselines_are_the_majority_the_last_value_and_one_feature(judged: Evaluation) -> None:
    assert set(judged.baselines) == {"majority", "last", "one_feature"}
    assert judged.titles["one_feature"] == "one feature alone, x"
    assert judged.baselines["last"]["roc_auc"] > 0.6  # users stay as they are
    assert judged.is_better
    beaten = [name for name, one in judged.differences.items() if one.low is not None and one.low > 0]
    best = max(beaten, key=lambda name: judged.baselines[name]["roc_auc"])
    assert judged.verdict.startswith(f"better than {judged.titles[best]}: roc_auc 0.")


def test_the_last_value_is_of_the_training_part_and_before_the_row() -> None:
    """By hand: of each row that judges, the same user's newest row that taught."""
    one = trial()
    frame, target = made()
    last: dict[int, bool] = {}
    for user, happened in zip(frame["user"][:2_000], target[:2_000], strict=True):
        last[user] = bool(happened)
    wanted = np.array([last.get(user, False) for user in frame["user"][2_000:]])
    assert evaluate(one).baselines["last"]["accuracy"] == pytest.approx((wanted == target[2_000:]).mean())


def test_slices_show_where_a_model_is_bad_and_keep_silent_where_rows_are_few(judged: Evaluation) -> None:
    shops = judged.slices["shop"]
    assert set(shops) == {"0", "1", "2", "3", "(missing)"}
    bad, whole = shops["3"].metrics["roc_auc"], judged.metrics["roc_auc"]
    assert bad.high is not None
    assert bad.high < whole.value
    assert sum(part.rows for part in shops.values()) == 1_000
    few = shops["(missing)"]
    assert 0 < few.rows <= 20
    assert few.entities is not None
    assert few.metrics == {} or few.entities >= 20
    assert len(judged.slices["week of at"]) >= 3


def test_a_model_that_knows_nothing_is_not_better() -> None:
    found = evaluate(trial(inputs=["noise"], model=LogisticRegression()))
    assert not found.is_better
    assert found.verdict.startswith("not ")
    assert "one_feature" not in found.baselines  # it is the model


def test_a_model_that_is_one_feature_is_told_so() -> None:
    def by_x(frame: pl.DataFrame, _: Any) -> Any:
        return (frame["x"].to_numpy() + np.random.default_rng(9).normal(size=ROWS)) > 0.3

    found = evaluate(trial(LogisticRegression(), by_x, inputs=["x", "noise"], metrics=("accuracy",), entities=()))
    assert found.is_better
    assert re.search(r"; not (clearly )?better than one feature alone, x: 0\.\d+$", found.verdict)


def test_a_model_that_is_worse_than_the_last_value_is_not_better() -> None:
    def steady(frame: pl.DataFrame, _: Any) -> Any:
        return (frame["user"] % 3 == 0).to_numpy() ^ (frame["x"].to_numpy() > 2.2)

    found = evaluate(trial(LogisticRegression(), steady, inputs=["x", "noise"], metrics=("roc_auc",)))
    assert not found.is_better
    assert found.verdict.startswith("not better than each entity's last value: roc_auc ")


def test_a_model_that_is_as_good_as_a_perfect_last_value_is_better() -> None:
    def steady(frame: pl.DataFrame, _: Any) -> Any:
        return (frame["user"] > 99).to_numpy()

    inputs = ["user", "noise"]
    frame, _ = made()
    target, train = steady(frame, None), np.arange(ROWS) < 2_000
    schema = Schema.of({"user": "int64", "noise": "float64"})
    learned = learn(DecisionTreeClassifier(random_state=0), Lesson(frame.select(inputs), target, schema).part(train))
    times = frame["at"].dt.timestamp("us").to_numpy()
    found = evaluate(Trial(learned, frame, inputs, target, train, ~train, ("accuracy",), times, "at", (("user",),)))
    assert found.metrics["accuracy"].value == 1.0
    assert found.is_better
    assert "; not better than each entity's last value" in found.verdict


def test_numbers_are_judged_beside_the_mean() -> None:
    def amount(frame: pl.DataFrame, _: Any) -> Any:
        return (2 * frame["x"] + frame["noise"]).to_numpy()

    found = evaluate(trial(LinearRegression(), amount, inputs=["x", "noise"], metrics=("rmse", "r2"), entities=()))
    assert set(found.baselines) == {"mean", "one_feature"}
    assert found.baselines["mean"]["r2"] == pytest.approx(0.0, abs=0.01)
    assert found.is_better
    assert found.differences["mean"].value > 0  # better, although less


def test_words_as_classes_and_more_than_two() -> None:
    def word(frame: pl.DataFrame, happened: Any) -> Any:
        return np.where(frame["x"].to_numpy() > 1, "high", np.where(happened, "yes", "no")).astype(object)

    found = evaluate(trial(target=word, metrics=("f1", "roc_auc", "log_loss")))
    assert set(found.metrics) == {"f1", "roc_auc", "log_loss"}
    assert found.is_better
    json.dumps(found.to_dict(), allow_nan=False)


def test_rows_of_one_class_can_not_judge_a_ranking() -> None:
    def early(frame: pl.DataFrame, happened: Any) -> Any:
        return happened & (np.arange(ROWS) < 2_000)

    found = evaluate(trial(target=early, metrics=("roc_auc", "accuracy")))
    assert found.verdict.startswith("not judged: roc_auc isn't defined")
    assert not found.is_better
    assert set(found.metrics) == {"accuracy"}
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_same_seed_judges_the_same(judged: Evaluation) -> None:
    assert evaluate(trial()).to_dict() == judged.to_dict()


def test_slices_by_time_and_by_quarters_of_numbers() -> None:
    frame, _ = made()
    month, x, user = sliced(frame, [nr.by_month(), "x", "user"], [], "at")
    assert month.values == ["1970-01", "1970-02", "1970-03"]
    assert len(x.values) == 4
    counts = np.bincount(x.codes)
    assert counts.min() > 700
    assert user.values[0].startswith("up to ")
    (many,) = sliced(frame.with_columns(word=pl.col("user").cast(pl.String)), ["word"], [], None)
    assert many.values[-1] == "(other)"
    assert len(many.values) == 21


def test_wrong_slices_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="did you mean 'month'"):
        ByTime("monht")
    plain = nr.Source("plain", "plain.csv", schema={"x": "float64", "y": "bool"})
    given: dict[str, Any] = {"labels": plain, "target": "y", "features": ["x"], "model": LogisticRegression()}
    with pytest.raises(ConfigError, match="no column 'z' to slice by"):
        nr.ModelTrainingPipeline("m", **given, slices=["z"])
    with pytest.raises(ConfigError, match="need an event time"):
        nr.ModelTrainingPipeline("m", **given, slices=[nr.by_month()])


def test_an_interval_in_words() -> None:
    from noria.training.bootstrap import Interval

    assert interval_text(Interval(0.73124, 0.7, 0.75)) == "0.7312 [0.7000, 0.7500]"
    assert interval_text(Interval(1234.5, 1200.0, None)) == "1,234.5"
