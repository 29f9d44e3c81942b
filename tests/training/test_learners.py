"""Every learner, for real: text and gaps as each library takes them, rows served as they were learned from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import noria as nr
from noria.core import ConfigError, Schema, Settings
from noria.pipelines import steps_from_dict, steps_to_dict
from noria.registry import ModelRegistry
from noria.serving import load_servable
from noria.storage import Workspace
from noria.training import answers
from noria.training.answers import answer
from noria.training.fast import FastPredictor, predictor_of
from noria.training.formats import keep, restore
from noria.training.inputs import ModelInputs
from noria.training.learner import Learned, Lesson, fit_once

lgb = pytest.importorskip("lightgbm")
xgb = pytest.importorskip("xgboost")
catboost = pytest.importorskip("catboost")
pytest.importorskip("torch")

pytestmark = pytest.mark.usefixtures("one_thread")

SCHEMA = Schema.of({"amount": "float64?", "n": "int64", "on": "bool?", "shop": "str?", "city": "str"})
SMALL = {"n_estimators": 15, "n_jobs": 1}
MODELS: dict[str, Any] = {
    "forest": RandomForestClassifier(10),
    "histogram": HistGradientBoostingClassifier(max_iter=15),
    "boosting": GradientBoostingClassifier(n_estimators=10),
    "linear": make_pipeline(StandardScaler(), LogisticRegression()),
    "neighbours": make_pipeline(StandardScaler(), KNeighborsClassifier()),
    "lightgbm": lgb.LGBMClassifier(**SMALL, verbose=-1),
    "xgboost": xgb.XGBClassifier(**SMALL),
    "catboost": catboost.CatBoostClassifier(iterations=15),
    "torch": nr.TorchModule(epochs=30, hidden=(16,), learning_rate=0.02),
}
SLOW = {"neighbours", "catboost", "torch"}


def examples(rows: int = 1200, classes: int = 2, seed: int = 3) -> tuple[pl.DataFrame, np.ndarray]:
    random = np.random.default_rng(seed)
    amount, n, on = random.normal(10, 3, rows), random.integers(0, 9, rows), random.random(rows) < 0.4
    shop, city = random.integers(0, 30, rows), random.integers(0, 4, rows)
    effect = np.random.default_rng(0).normal(0, 3, 30)
    frame = pl.DataFrame(
        {
            "amount": [None if i % 11 == 0 else float(a) for i, a in enumerate(amount)],
            "n": n,
            "on": [None if i % 13 == 0 else bool(o) for i, o in enumerate(on)],
            "shop": [None if i % 17 == 0 else f"s{s}" for i, s in enumerate(shop)],
            "city": [f"c{c}" for c in city],
        }
    )
    score = (amount - 10) / 3 + effect[shop] + random.normal(0, 0.3, rows)
    edges = np.quantile(score, np.linspace(0, 1, classes + 1)[1:-1])
    target = np.searchsorted(edges, score)
    return frame, target.astype(bool) if classes == 2 else target


def lesson(**options: Any) -> Lesson:
    frame, target = examples(classes=options.pop("classes", 2))
    return Lesson(frame, target, SCHEMA, **options)


def scored(learned: Learned, frame: pl.DataFrame, target: np.ndarray) -> float:
    return float((np.asarray(learned.estimator.predict(learned.inputs.matrix(frame))) == target).mean())


@pytest.mark.parametrize("name", MODELS)
def test_text_and_gaps_need_no_word(name: str) -> None:
    learned = fit_once(MODELS[name], lesson(seed=1))
    frame, target = examples(seed=5)
    assert scored(learned, frame, target) > (0.6 if name == "neighbours" else 0.7)
    again = fit_once(MODELS[name], lesson(seed=1))
    other: Any = again.estimator
    ours: Any = learned.estimator
    matrix = learned.inputs.matrix(frame)
    assert np.array_equal(ours.predict_proba(matrix), other.predict_proba(matrix)), "the seed says it all"
    assert keep(learned.estimator, Settings(Path())).spec["format"] != "pickle"
    assert isinstance(predictor_of(learned.estimator), FastPredictor) == (name not in SLOW)


@pytest.mark.parametrize("name", MODELS)
def test_more_classes_than_two(name: str) -> None:
    learned = fit_once(MODELS[name], lesson(classes=3, seed=1))
    frame, target = examples(classes=3, seed=5)
    assert scored(learned, frame, target) > 0.45
    made = np.asarray(learned.estimator.predict(learned.inputs.matrix(frame)))
    assert made.shape == (len(frame),)
    assert made.dtype == target.dtype


@pytest.mark.parametrize("early_stopping", [None, 3])
@pytest.mark.parametrize("classes", [[False, True], ["no", "yes"], [1, 2], ["a", "b", "c"], [-1.0, 7.0]])
def test_xgboost_answers_with_the_targets_own_classes(
    classes: list[Any], early_stopping: int | None, tmp_path: Path
) -> None:
    given = lesson(classes=len(classes), seed=1, early_stopping=early_stopping)
    codes = given.target.astype(np.int64)
    target = np.array(classes, object if isinstance(classes[0], str) else None)[codes]
    plain: Any = fit_once(MODELS["xgboost"], replace(given, target=codes)).estimator
    learned = fit_once(MODELS["xgboost"], replace(given, target=target))
    estimator: Any = learned.estimator
    matrix = learned.inputs.matrix(given.inputs)
    assert estimator.predict(matrix).tolist() == [classes[code] for code in plain.predict(matrix)]
    assert np.array_equal(estimator.predict_proba(matrix), plain.predict_proba(matrix))
    assert estimator.classes_.tolist() == classes
    predictor = predictor_of(estimator)
    assert isinstance(predictor, FastPredictor)
    assert predictor.predict(matrix)[0].tolist() == estimator.predict(matrix).tolist()
    kept = keep(estimator, Settings(tmp_path))
    assert kept.spec["format"] == "xgboost"
    for name, data in kept.files.items():
        (tmp_path / name).write_bytes(data)
    again = restore(kept.spec, {name: tmp_path / name for name in kept.files}, Settings(tmp_path), "late")
    assert np.asarray(again.predict(matrix)).tolist() == estimator.predict(matrix).tolist()


@pytest.mark.parametrize(
    "model",
    [
        lgb.LGBMRegressor(**SMALL, verbose=-1), xgb.XGBRegressor(**SMALL), catboost.CatBoostRegressor(iterations=15),
        nr.TorchModule(epochs=60, hidden=(32,), learning_rate=0.02),
    ],
    ids=["lightgbm", "xgboost", "catboost", "torch"],
)  # fmt: skip
def test_numbers_are_predicted_too(model: Any) -> None:
    frame, _ = examples()
    target = frame["n"].to_numpy() * 100.0 + frame["amount"].fill_null(10).to_numpy()
    learned = fit_once(model, Lesson(frame, target, SCHEMA, seed=1))
    made = np.asarray(learned.estimator.predict(learned.inputs.matrix(frame)))
    assert made.shape == (len(frame),)
    assert 1 - ((made - target) ** 2).mean() / target.var() > 0.7


ROW = st.tuples(
    st.none() | st.floats(-1e6, 1e6),
    st.integers(-(2**40), 2**40),
    st.none() | st.booleans(),
    st.none() | st.sampled_from(["s1", "s2", "new", ""]),
    st.sampled_from(["c0", "c3", "elsewhere"]),
)
LEARNED: dict[str, Learned] = {}


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=25, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=9))
def test_rows_batch_and_saved_steps_give_the_same_bits(name: str, rows: list[Any]) -> None:
    if name not in LEARNED:
        LEARNED[name] = fit_once(MODELS[name], lesson(seed=1))
    learned = LEARNED[name]
    state = msgspec.json.encode(steps_to_dict(learned.inputs.steps))
    inputs = ModelInputs(SCHEMA, steps_from_dict(msgspec.json.decode(state)))
    matrix = inputs.matrix_of_rows(rows)
    assert matrix.tobytes() == learned.inputs.matrix(learned.inputs.frame(rows)).tobytes()
    if name == "linear":
        return  # of many columns: its formula is tested beside the other ones
    predictor = predictor_of(learned.estimator)
    together = predictor.predict(matrix)
    alone = [predictor.predict(matrix[at : at + 1]) for at in range(len(rows))]
    assert np.array_equal(together[0], np.concatenate([one[0] for one in alone]))
    assert np.array_equal(together[1], np.concatenate([one[1] for one in alone]))


def test_steps_of_the_user_win() -> None:
    steps = [nr.Impute(["amount"]), nr.Encode(method="onehot"), nr.Derive({"twice": nr.col("n") * 2})]
    learned = fit_once(lgb.LGBMClassifier(**SMALL, verbose=-1), lesson(steps=steps))
    assert [state["step"] for state in steps_to_dict(learned.inputs.steps)] == ["Impute", "Encode", "Derive"]
    mended = fit_once(LogisticRegression(max_iter=10_000), lesson(steps=steps))
    assert [state["step"] for state in steps_to_dict(mended.inputs.steps)][3:] == ["Cast", "Impute"]
    assert steps_to_dict(mended.inputs.steps)[4]["fills"].keys() == {"on"}


def test_what_each_family_gets() -> None:
    made = {name: steps_to_dict(fit_once(model, lesson()).inputs.steps) for name, model in MODELS.items()}
    kinds = {name: [step.get("method", step["step"]) for step in steps] for name, steps in made.items()}
    for name in ("lightgbm", "xgboost", "catboost"):
        assert kinds[name] == ["category"]
    for name in ("forest", "histogram"):
        assert kinds[name] == ["ordinal"]
    assert kinds["boosting"] == ["Cast", "Impute", "ordinal"]
    assert kinds["linear"] == kinds["neighbours"] == ["Cast", "Impute", "onehot"]
    assert kinds["torch"] == ["Cast", "Impute", "Normalize", "onehot"]
    assert made["linear"][1]["indicators"] == ["amount", "on"]


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        (lgb.LGBMClassifier(n_estimators=400, learning_rate=0.3, n_jobs=1, verbose=-1), 5),
        (lgb.LGBMClassifier(n_estimators=400, learning_rate=0.3, n_jobs=1, verbose=-1, early_stopping_rounds=5), None),
        (xgb.XGBClassifier(n_estimators=400, n_jobs=1), 5),
        (xgb.XGBClassifier(n_estimators=400, n_jobs=1, early_stopping_rounds=5), None),
        (catboost.CatBoostClassifier(iterations=400, learning_rate=0.5), 5),
        (catboost.CatBoostClassifier(iterations=400, learning_rate=0.5, early_stopping_rounds=5), None),
        (HistGradientBoostingClassifier(max_iter=400, learning_rate=0.3), 5),
        (nr.TorchModule(epochs=400, hidden=(32,), learning_rate=0.02), None),
    ],
)
def test_a_model_stops_when_it_gets_no_better(model: Any, asked: int | None) -> None:
    learned = fit_once(model, lesson(early_stopping=asked, split=nr.StratifiedSplit(0.25), seed=2))
    stopped = learned.notes["early_stopping"]
    assert stopped["held_out"] == 300
    assert 1 <= stopped["rounds"] < 399
    frame, target = examples(seed=5)
    assert scored(learned, frame, target) > 0.75


@pytest.mark.parametrize("classes", [["no", "yes"], [1, 2], ["a", "b", "c"]])
def test_lightgbm_stops_by_classes_of_any_kind(classes: list[Any]) -> None:
    model = lgb.LGBMClassifier(n_estimators=400, learning_rate=0.3, n_jobs=1, verbose=-1)

    def stopped(names: list[Any]) -> Any:
        coded = lesson(classes=len(names), early_stopping=5, split=nr.RandomSplit(0.25), seed=2)
        return fit_once(model, replace(coded, target=np.array(names)[coded.target.astype(int)])).notes

    assert stopped(classes) == stopped(list(range(len(classes))))


def test_without_a_word_a_model_learns_from_all_rows() -> None:
    learned = fit_once(lgb.LGBMClassifier(**SMALL, verbose=-1), lesson())
    assert learned.notes == {}
    estimator: Any = learned.estimator
    assert estimator.booster_.num_trees() == 15
    with pytest.raises(ConfigError, match="can't stop early"):
        fit_once(RandomForestClassifier(), lesson(early_stopping=5))
    with pytest.raises(ConfigError, match="early_stopping=0"):
        fit_once(lgb.LGBMClassifier(), lesson(early_stopping=0))
    with pytest.raises(ConfigError, match="early_stopping=True"):
        fit_once(lgb.LGBMClassifier(), lesson(early_stopping=True))


def test_lightgbm_says_only_what_it_warns_of(capfd: pytest.CaptureFixture[str]) -> None:
    fit_once(lgb.LGBMClassifier(**SMALL, rounds_of_boosting=9), lesson())
    said = capfd.readouterr()
    assert "rounds_of_boosting" in said.out
    assert "[Info]" not in said.out


def test_the_part_that_says_when_to_stop_comes_after_the_one_that_teaches() -> None:
    times = np.arange(1200, dtype=np.int64) * 86_400_000_000
    seen: list[np.ndarray] = []

    class Watching(nr.TimeSplit):  # type: ignore[misc]
        def masks(self, times: Any, *rest: Any) -> Any:
            train, test = super().masks(times, *rest)
            seen.extend([times[train], times[test]])
            return train, test

    fit_once(lgb.LGBMClassifier(**SMALL, verbose=-1), lesson(early_stopping=5, times=times, split=Watching(0.2, "9d")))
    assert seen[1].min() - seen[0].max() > 9 * 86_400_000_000 - 1
    with pytest.raises(ConfigError, match="set aside that say when to stop"):
        fit_once(lgb.LGBMClassifier(), lesson(early_stopping=5, split=nr.TimeSplit()))


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    frame, target = examples(600)
    frame.with_columns(bought=pl.Series(target)).write_csv(tmp_path / "sales.csv")
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


@pytest.mark.parametrize("name", ["linear", "lightgbm", "catboost", "torch"])
def test_trained_by_a_pipeline_and_served(name: str, workspace: Workspace) -> None:
    sales = nr.Source("sales", "sales.csv", schema={**SCHEMA.to_dict(), "bought": "bool"})
    part = nr.ModelTrainingPipeline(
        "bought", labels=sales, target="bought", features=SCHEMA.names, model=MODELS[name],
        split=nr.StratifiedSplit(), class_weight="balanced", metrics=["roc_auc"],
    )  # fmt: skip
    if name == "linear":
        part = nr.ModelTrainingPipeline(
            "bought", labels=sales, target="bought", features=SCHEMA.names, model=MODELS[name], split=nr.RandomSplit()
        )
    report = nr.System("shop", [sales, part]).run(workspace)
    assert not report.failed, report.failed
    run = report.steps["bought"].run
    assert run is not None
    assert run.notes["peak_memory_bytes"] > 2**20
    version = ModelRegistry.of(workspace).get("bought")
    assert version.spec["steps"]
    assert version.metrics["roc_auc"] > 0.7

    servable: Any = load_servable(version, workspace)
    servable.warm_up()
    rows = [
        {"amount": 9.5, "n": 3, "on": True, "shop": "s1", "city": "c1"},
        {"amount": None, "n": 3, "on": None, "shop": "new", "city": "c9"},
    ]
    request = servable.decode("predict", msgspec.json.encode({"instances": rows}))
    answer = servable.answer("predict", [request])[0]
    msgspec.json.encode(answer)
    assert [type(one) for one in answer.predictions] == [bool, bool]
    assert all(0 <= score <= 1 for score in answer.scores)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["LGBMClassifier", "LGBMRegressor"])
def test_columns_that_lightgbm_reads_where_they_lie_make_the_model_of_a_matrix(kind: str, weighted: bool) -> None:
    random = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "gaps": [None if i % 7 == 0 else float(v) for i, v in enumerate(random.normal(size=600))],
            "short": pl.Series(random.normal(size=600), dtype=pl.Float32),
            "whole": random.integers(-(2**60), 2**60, 600),
            "flag": random.normal(size=600) > 0,
        }
    )
    target = (frame["gaps"].fill_null(1.0) > 0).to_numpy().astype(int)
    weights = random.uniform(1, 2, 600) if weighted else None
    model = getattr(lgb, kind)(n_estimators=10, n_jobs=1, verbose=-1)
    schema = Schema.of({"gaps": "float64?", "short": "float32", "whole": "int64", "flag": "bool"})
    learned = fit_once(model, Lesson(frame, target, schema, weights=weights))
    matrix = learned.inputs.matrix(frame)
    by_hand = getattr(lgb, kind)(**model.get_params()).fit(matrix, target, sample_weight=weights)
    estimator: Any = learned.estimator
    assert estimator.booster_.model_to_string() == by_hand.booster_.model_to_string()
    assert not hasattr(estimator, "feature_names_in_")  # it would warn at each matrix


def test_many_answers_come_of_the_formula_and_are_the_librarys(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    frame = pl.DataFrame({f"x{n}": random.normal(size=3000) for n in range(4)})
    target = (frame["x0"] + frame["x1"] > 0).to_numpy()
    schema = Schema.of(dict.fromkeys(frame.columns, "float64"))
    model = lgb.LGBMClassifier(n_estimators=10, n_jobs=1, verbose=-1)
    learned = fit_once(model, Lesson(frame, target, schema))
    few = answer(learned, frame, target)
    assert "predictor" not in vars(learned)
    monkeypatch.setattr(answers, "MANY_NUMBERS", 1000)
    many = answer(learned, frame, target)
    assert isinstance(learned.predictor, FastPredictor)
    assert few.given is not None
    assert many.given is not None
    assert few.given.tobytes() == many.given.tobytes()
    assert few.predicted.tolist() == many.predicted.tolist()
