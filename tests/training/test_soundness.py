"""Rows and models that nothing can be learned from: each is a clear error, and the champion stays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier

import noria as nr
from noria.core import ConfigError, DataError, NoriaError, Schema, Settings
from noria.registry import ModelRegistry
from noria.serving import load_servable
from noria.storage import Workspace
from noria.training.answers import answer
from noria.training.inputs import ModelInputs
from noria.training.learner import Learned

pytestmark = pytest.mark.usefixtures("one_thread")

ROWS = 300
SCHEMA = {
    "user": "int64", "x": "float64?", "gone": "float64?", "blank": "str?", "wild": "float64?", "kind": "str",
    "y": "bool", "at": nr.Timestamp("s"),
}  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    random = np.random.default_rng(0)
    x = random.normal(size=ROWS)
    frame = pl.DataFrame(
        {
            "user": np.arange(ROWS) % 7,
            "x": x,
            "gone": pl.Series([None] * ROWS, dtype=pl.Float64),
            "blank": pl.Series([None] * ROWS, dtype=pl.String),
            "wild": x,
            "kind": random.choice(["a", "b"], ROWS),
            "y": x + random.normal(size=ROWS) > 0,
            "at": np.arange(ROWS),
        }
    )
    frame.write_parquet(tmp_path / "rows.parquet")
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def source() -> nr.Source:
    return nr.Source("rows", "rows.parquet", schema=SCHEMA)


def pipeline(**options: Any) -> nr.ModelTrainingPipeline:
    given = {"features": ["x"], "model": LogisticRegression(), "target": "y", "metrics": ["accuracy"], **options}
    return nr.ModelTrainingPipeline("m", labels=source(), **given)


def run(workspace: Workspace, part: nr.ModelTrainingPipeline) -> None:
    report = nr.System("s", [part.labels, *part.groups, part]).run(workspace)
    if report.failed and report.failed[0].error:
        raise report.failed[0].error


class NoPredict:
    def fit(self, X: Any, y: Any) -> None:  # noqa: N803
        pass


class Says(NoPredict):
    """Predicts whatever it is told to."""

    def __init__(self, said: Any) -> None:
        self.said = said

    def predict(self, X: Any) -> Any:  # noqa: N803
        return self.said if isinstance(self.said, np.ndarray) else [self.said] * len(X)


class Weights:
    """Weighs the rows as it is told to."""

    def __init__(self, said: Any) -> None:
        self.said = said

    def weights(self, times: Any) -> Any:
        return self.said

    def to_dict(self) -> dict[str, Any]:
        return {"weights": str(self.said)}


def odd(value: float) -> Weights:
    return Weights(np.r_[value, np.ones(239)])


INFINITE = pl.when(nr.col("x") > 1).then(float("inf")).otherwise(nr.col("x"))


def xgboost() -> Any:
    return pytest.importorskip("xgboost").XGBClassifier(n_estimators=3, n_jobs=1)


CASES: list[tuple[dict[str, Any], str]] = [
    ({"target": pl.lit(None, pl.Boolean)}, "none of the 300 rows of 'rows' has a target"),
    ({"target": pl.lit(True)}, "all 240 training rows have the target True"),
    ({"target": nr.col("at").dt.epoch("s") < 240}, "all 240 training rows have the target True"),
    ({"target": nr.col("x") / 0 * 0, "model": LinearRegression(), "metrics": ["rmse"]}, "the target is NaN in 300 of 300"),
    ({"target": INFINITE, "model": LinearRegression(), "metrics": ["rmse"]}, "the target is infinite in"),
    ({"target": "kind", "model": LinearRegression(), "metrics": ["rmse"]}, "predicts numbers, and the target is text"),
    ({"target": "x", "model": DecisionTreeClassifier()}, "DecisionTreeClassifier can't learn from these rows: Unknown label"),
    ({"features": ["gone", "blank"]}, "no feature has a value in any of the 240 training rows"),
    ({"split": nr.GroupSplit(by="y"), "target": "y"}, "training rows have the target"),
    ({"split": nr.TimeSplit(embargo="9d")}, "embargo of 9d lie all rows"),
    ({"weights": odd(np.nan)}, "Weights gives as weights nan for a row"),
    ({"weights": odd(-1)}, "Weights gives as weights -1.0 for a row"),
    ({"weights": Weights(np.zeros(240))}, "Weights gives as weights 0 for every row"),
    ({"weights": Weights([1.0, 2.0])}, "Weights gives as weights float64[2] for 240 rows"),
    ({"weights": Weights(None)}, "Weights gives as weights object[] for 240 rows"),
    ({"weights": nr.recency("9d"), "model": DummyClassifier(), "class_weight": {"a": 1}}, "has no weight for the class False\n  hint: the classes are False, True"),
]  # fmt: skip


def test_bad_rows_are_explained_and_the_champion_stays(workspace: Workspace) -> None:
    run(workspace, pipeline())
    registry = ModelRegistry.of(workspace)
    assert registry.get("m@champion").version == 1
    for options, message in CASES:
        model = options.get("model")
        given = {**options, "model": model()} if callable(model) else options
        with pytest.raises(NoriaError) as caught:
            run(workspace, pipeline(**given))
        assert message in str(caught.value), options
        assert caught.value.hint, options
    assert registry.get("m@champion").version == 1
    assert len(registry.versions("m")) == 1


def test_what_cant_be_judged_is_told_before_the_fit(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("noria.training.learner.fit_estimator", lambda *_: pytest.fail("it was fitted"))
    with pytest.raises(ConfigError, match="metric 'rmse' is of numbers, and the target is text"):
        run(workspace, pipeline(target="kind", metrics=["accuracy", "rmse"]))


def test_infinite_features_are_named(workspace: Workspace, tmp_path: Path) -> None:
    frame = pl.read_parquet(tmp_path / "rows.parquet")
    wild = pl.when(pl.col("x") > 1).then(float("inf")).otherwise(pl.col("x"))
    table = frame.with_columns(wild.alias("wild"))
    from noria.training.learner import Lesson, fit_once

    schema = Schema.of({"x": "float64?", "wild": "float64?"})
    lesson = Lesson(table.select("x", "wild"), table["y"].to_numpy(), schema)
    for model in (LogisticRegression(), xgboost()):
        with pytest.raises(NoriaError, match="feature 'wild' is infinite in"):
            fit_once(model, lesson)


def test_models_that_are_none_are_refused_at_once() -> None:
    for model, message in (
        (NoPredict(), "NoPredict has no predict"),
        (42, "int has no fit and no predict"),
        (LogisticRegression, "a model is an object, not a class"),
    ):
        with pytest.raises(ConfigError) as caught:
            pipeline(model=model)
        assert message in str(caught.value)
    for name in ('a"b', "a\\b", "a\tb"):
        labels = nr.Source("rows", "rows.parquet", schema={name: "float64", "y": "bool"})
        with pytest.raises(ConfigError, match="an input can't be named"):
            nr.ModelTrainingPipeline("m", labels=labels, target="y", features=[name], model=LogisticRegression())
    labels = nr.Source("rows", "rows.parquet", schema={"__target__": "float64", "y": "bool"})
    with pytest.raises(ConfigError, match="__target__ is what the training set calls the target"):
        nr.ModelTrainingPipeline("m", labels=labels, target="y", features=["__target__"], model=LogisticRegression())
    with pytest.raises(ConfigError, match="no column 'usr'"):
        pipeline(split=nr.GroupSplit(by="usr"))
    with pytest.raises(ConfigError, match="class_weight='even'"):
        pipeline(class_weight="even")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("a", "Says predicts str32[3], and the target is bool[3]"),
        ([0, 1], "Says predicts int64[3, 2], and the target is bool[3]"),
        (None, "Says predicts object[3], and the target is bool[3]"),
    ],
)
def test_answers_that_can_not_be_judged_are_explained(said: Any, told: str) -> None:
    inputs = pl.DataFrame({"x": [1.0, 2.0, 3.0]})
    learned = Learned(Says(said), ModelInputs(Schema.of({"x": "float64"}), ()))
    with pytest.raises(DataError) as caught:
        answer(learned, inputs, np.array([True, False, True]))
    assert told in str(caught.value)
    in_objects = Learned(Says(np.array([1.0, 2.0, 3.0], object)), learned.inputs)
    assert answer(in_objects, inputs, np.zeros(3)).errors.tolist() == [1.0, 2.0, 3.0]


def test_text_classes_are_answered_as_text(workspace: Workspace) -> None:
    run(workspace, pipeline(target="kind", model=DecisionTreeClassifier(max_depth=3), split=nr.StratifiedSplit()))
    version = ModelRegistry.of(workspace).versions("m")[0]
    servable: Any = load_servable(version, workspace)
    request = servable.decode("predict", msgspec.json.encode({"instances": [{"x": 1.0}, {}]}))
    assert set(servable.answer("predict", [request])[0].predictions) <= {"a", "b"}


def test_what_is_missing_online_is_filled(workspace: Workspace) -> None:
    rows = source()
    group = nr.FeatureGroup("habits", entity="user", source=rows, features={"mean_x": nr.mean("x", window="100s")})
    run(workspace, pipeline(features=["x", group]))
    servable: Any = load_servable(ModelRegistry.of(workspace).get("m@1"), workspace)
    request = servable.decode("predict", msgspec.json.encode({"entities": [{"user": 999_999, "x": 1.0}]}))
    assert servable.answer("predict", [request])[0].scores[0] > 0.5


def test_folds_are_judged_each_and_the_last_one_is_registered(workspace: Workspace) -> None:
    part = pipeline(split=nr.RollingSplit(folds=3, test=0.1), metrics=["accuracy", "roc_auc"])
    run(workspace, part)
    version = ModelRegistry.of(workspace).get("m@1")
    folds = version.parameters["folds"]["accuracy"]
    assert len(folds["each"]) == 3
    assert folds["each"][-1] == version.metrics["accuracy"]
    assert folds["mean"] == pytest.approx(np.mean(folds["each"]))
    assert folds["std"] == pytest.approx(np.std(folds["each"], ddof=1))


def test_a_grouped_split_by_a_column_that_is_no_feature(workspace: Workspace) -> None:
    run(workspace, pipeline(split=nr.GroupSplit(by="user"), weights=nr.recency("100s"), class_weight="balanced"))
    version = ModelRegistry.of(workspace).get("m@1")
    assert version.parameters["leakage"]["shared_entities"] == 0.0
    assert version.parameters["weights"] == {"weights": "recency", "half_life": "100s", "least": 0.001}
    from noria.training import rebuild_dataset

    frame = rebuild_dataset(workspace, version).frame
    sides = frame.group_by("__part__").agg(pl.col("user").unique())
    assert len(set(sides["user"][0]) & set(sides["user"][1])) == 0
