"""Keeping and restoring estimators: to the bit, without code being run, and with clear words where it can't be."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import TransformedTargetRegressor
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Lasso, LinearRegression, LogisticRegression, PoissonRegressor, Ridge, SGDClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from noria.core import ConfigError, DataError, NoriaError, Settings
from noria.core.settings import RegistrySettings
from noria.training.fast import LibraryPredictor, fast_predictor
from noria.training.formats import Kept, check, keep, restore

lgb = pytest.importorskip("lightgbm")
xgb = pytest.importorskip("xgboost")
cat = pytest.importorskip("catboost")

STRICT = Settings()
TRUSTING = replace(STRICT, registry=RegistrySettings(trust_pickles=True))
LIGHT = {"n_estimators": 6, "verbose": -1, "n_jobs": 1}
XGB = {"n_estimators": 6, "n_jobs": 1}
CAT = {"iterations": 6, "verbose": False, "allow_writing_files": False, "thread_count": 1}
FOREST = {"n_estimators": 4, "random_state": 0}


class Half:
    """An estimator of one's own."""

    def fit(self, X: Any, y: Any) -> Half:  # noqa: N803
        self.mean = float(np.mean(y))
        return self

    def predict(self, X: Any) -> Any:  # noqa: N803
        return np.full(len(X), self.mean / 2)


def back(kept: Kept, folder: Path, settings: Settings = STRICT, **changed: Any) -> Any:
    files = {}
    for name, data in kept.files.items():
        (folder / name).write_bytes(data)
        files[name] = folder / name
    return restore({**kept.spec, **changed}, files, settings, "model late@3")


def yes_no(target: Any) -> Any:
    return np.where(target > 1, "yes", "no")


def bands(target: Any) -> Any:
    return np.digitize(target, [0.0, 2.0, 3.0])


def truth(target: Any) -> Any:
    return target > 1


def values(target: Any) -> Any:
    return target


CASES: list[tuple[str, Any, Callable[[Any], Any], str]] = [
    ("skops", LogisticRegression(), yes_no, "finite"),
    ("skops", LogisticRegression(max_iter=2000), bands, "finite"),
    ("skops", SGDClassifier(random_state=0), truth, "finite"),
    ("skops", LinearRegression(), values, "finite"),
    ("skops", Ridge(), values, "finite"),
    ("skops", Lasso(alpha=0.01), values, "finite"),
    ("skops", PoissonRegressor(), np.abs, "finite"),
    ("skops", make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()), truth, "gaps"),
    ("skops", make_pipeline(MinMaxScaler(), RobustScaler(), LinearRegression()), values, "finite"),
    ("skops", DecisionTreeClassifier(max_depth=4), yes_no, "gaps"),
    ("skops", RandomForestClassifier(**FOREST), truth, "gaps"),
    ("skops", ExtraTreesRegressor(**FOREST), values, "finite"),
    ("skops", GradientBoostingClassifier(n_estimators=5), bands, "finite"),
    ("skops", HistGradientBoostingClassifier(max_iter=5), truth, "gaps"),
    ("skops", HistGradientBoostingRegressor(max_iter=5, categorical_features=[3]), values, "gaps"),
    ("lightgbm", lgb.LGBMClassifier(**LIGHT), yes_no, "gaps"),
    ("lightgbm", lgb.LGBMClassifier(**LIGHT, class_weight={0: 1.0, 1: 2.5, 2: 1.0, 3: 1.0}), bands, "gaps"),
    ("lightgbm", lgb.LGBMRegressor(**LIGHT, objective="poisson"), np.abs, "gaps"),
    ("lightgbm", lgb.LGBMRegressor(**LIGHT, boosting_type="dart"), values, "gaps"),
    ("xgboost", xgb.XGBClassifier(**XGB), truth, "gaps"),
    ("xgboost", xgb.XGBClassifier(**XGB), bands, "gaps"),
    ("xgboost", xgb.XGBRegressor(**XGB, booster="dart", rate_drop=0.4), values, "gaps"),
    ("xgboost", xgb.XGBRFRegressor(**XGB), values, "gaps"),
    ("catboost", cat.CatBoostClassifier(**CAT), yes_no, "gaps"),
    ("catboost", cat.CatBoostClassifier(**CAT), bands, "gaps"),
    ("catboost", cat.CatBoostRegressor(**CAT), values, "gaps"),
    ("skops", MLPClassifier((4,), max_iter=300, random_state=0, tol=1.0), truth, "finite"),
    ("skops", SVC(), truth, "finite"),
    ("skops", KNeighborsClassifier(), yes_no, "finite"),
    ("skops", CalibratedClassifierCV(LogisticRegression(), cv=2), truth, "finite"),
    ("skops", VotingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier())]), truth, "finite"),
    ("skops", StackingClassifier([("a", LogisticRegression())], cv=2), truth, "finite"),
    ("skops", TransformedTargetRegressor(Ridge(), transformer=StandardScaler()), values, "finite"),
    ("skops", make_pipeline(StandardScaler(), lgb.LGBMClassifier(**LIGHT)), truth, "gaps"),
    ("skops", make_pipeline(StandardScaler(), xgb.XGBClassifier(**XGB)), truth, "gaps"),
    ("pickle", Half(), values, "finite"),
]


@pytest.mark.parametrize(
    ("form", "model", "target_of", "kind"), CASES, ids=[f"{c[0]}-{type(c[1]).__name__}-{c[2].__name__}" for c in CASES]
)
def test_an_estimator_comes_back_to_the_bit(
    form: str, model: Any, target_of: Any, kind: str, plain: Any, gaps: Any, target: Any, tmp_path: Path
) -> None:
    rows = gaps if kind == "gaps" else plain
    model.fit(rows, target_of(target))
    settings = TRUSTING if form == "pickle" else STRICT
    kept = keep(model, settings)
    assert kept.spec["format"] == form
    made = back(kept, tmp_path, settings)
    assert type(made) is type(model)
    mine, theirs = LibraryPredictor(model).predict(rows), LibraryPredictor(made).predict(rows)
    for one, other in zip(mine, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one.dtype, one.tolist()) == (other.dtype, other.tolist())
    if hasattr(model, "classes_"):
        assert np.asarray(made.classes_).dtype == np.asarray(model.classes_).dtype
    before, after = fast_predictor(model), fast_predictor(made)
    assert (before is None) == (after is None)
    again = keep(made, settings)
    assert again.spec == kept.spec
    # A k-d tree counts how often it was asked; the encoder of categories has temporary parts.
    if not isinstance(model, (KNeighborsClassifier, HistGradientBoostingRegressor)):
        assert keep(model, settings).files == kept.files  # the same bytes for the same model


def test_what_the_scikit_learn_interface_knows_comes_back(gaps: Any, target: Any, tmp_path: Path) -> None:
    light = lgb.LGBMClassifier(n_estimators=50, verbose=-1, learning_rate=0.5)
    stop = lgb.early_stopping(2, verbose=False)
    light.fit(gaps[:400], bands(target)[:400], eval_X=(gaps[400:],), eval_y=(bands(target)[400:],), callbacks=[stop])
    made = back(keep(light, STRICT), tmp_path)
    assert made.get_params() == light.get_params()
    for name in ("best_iteration_", "best_score_", "evals_result_", "objective_", "n_features_in_", "n_classes_"):
        assert getattr(made, name) == getattr(light, name)
    assert made.feature_importances_.tolist() == light.feature_importances_.tolist()

    boost = xgb.XGBRegressor(n_estimators=50, learning_rate=0.5, early_stopping_rounds=2, n_jobs=1)
    boost.fit(gaps[:400], target[:400], eval_set=[(gaps[400:], target[400:])], verbose=False)
    made = back(keep(boost, STRICT), tmp_path)
    assert str(made.get_params()) == str(boost.get_params())  # NaN is not NaN
    assert (made.best_iteration, made.evals_result()) == (boost.best_iteration, boost.evals_result())
    assert made.predict(gaps).tobytes() == boost.predict(gaps).tobytes()


def test_a_booster_alone(gaps: Any, target: Any, tmp_path: Path) -> None:
    booster = lgb.LGBMRegressor(**LIGHT).fit(gaps, target).booster_
    made = back(keep(booster, STRICT), tmp_path)
    assert made.predict(gaps).tobytes() == booster.predict(gaps).tobytes()
    assert fast_predictor(made) is not None


def test_a_pickle_needs_trust_to_be_kept_and_to_be_read(plain: Any, target: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can only be kept as a pickle") as told:
        check(Half(), STRICT)
    assert "[registry] trust_pickles = true" in told.value.hint
    with pytest.raises(ConfigError, match=r"test_formats\.Half"):
        keep(Half().fit(plain, target), STRICT)
    kept = keep(Half().fit(plain, target), TRUSTING)
    with pytest.raises(ConfigError, match="runs whatever code") as told:
        back(kept, tmp_path)
    assert "NORIA_REGISTRY_TRUST_PICKLES" in told.value.hint
    assert back(kept, tmp_path, TRUSTING).predict(plain)[0] == np.mean(target) / 2


def test_what_makes_it_a_pickle_is_named(plain: Any, target: Any) -> None:
    model = make_pipeline(FunctionTransformer(os.fspath), LogisticRegression())
    with pytest.raises(ConfigError, match=r"it has a posix\.fspath"):
        check(model, STRICT)
    with pytest.raises(ConfigError, match="its objective is a function"):
        keep(lgb.LGBMRegressor(**LIGHT, objective=squares).fit(plain, target), STRICT)
    check(LogisticRegression(), STRICT)
    check(lgb.LGBMRegressor(), STRICT)


def squares(truth: Any, predicted: Any) -> Any:
    return predicted - truth, np.ones(len(truth))


def test_a_version_from_before_there_were_formats_is_a_pickle(plain: Any, target: Any, tmp_path: Path) -> None:
    file = tmp_path / "model.pkl"
    file.write_bytes(pickle.dumps(Ridge().fit(plain, target)))
    with pytest.raises(ConfigError, match="kept as a pickle"):
        restore(None, {"model.pkl": file}, STRICT, "model late@1")
    assert isinstance(restore(None, {"model.pkl": file}, TRUSTING, "model late@1"), Ridge)


class Evil:
    def __reduce__(self) -> Any:
        return Path.mkdir, (Path("ran"),)


def test_a_file_with_unknown_types_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import skops.io

    monkeypatch.chdir(tmp_path)
    kept = keep(LogisticRegression(), STRICT)
    evil = make_pipeline(FunctionTransformer(os.system), LogisticRegression())
    (tmp_path / "model.skops").write_bytes(skops.io.dumps(evil))
    with pytest.raises(DataError, match=r"types that noria doesn't trust: (nt|posix)\.system"):
        restore(kept.spec, {"model.skops": tmp_path / "model.skops"}, STRICT, "model late@1")
    (tmp_path / "model.skops").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="skops can't read"):
        restore(kept.spec, {"model.skops": tmp_path / "model.skops"}, STRICT, "model late@1")
    assert not Path("ran").exists()


@pytest.mark.parametrize("model", [lgb.LGBMRegressor(**LIGHT), xgb.XGBRegressor(**XGB), LogisticRegression()], ids=str)
def test_another_librarys_version_is_told(
    model: Any, plain: Any, target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = keep(model.fit(plain, truth(target)), STRICT)
    (library,) = [name for name in kept.spec["libraries"] if name in ("lightgbm", "xgboost", "sklearn")]
    trained = kept.spec["libraries"][library]
    with pytest.raises(DataError, match=f" 99.1.0, and {trained} is installed here") as told:
        back(kept, tmp_path, libraries={library: "99.1.0"})
    assert "pip install" in told.value.hint
    monkeypatch.setattr("noria.training.formats.keeping.library_version", lambda name: None)
    with pytest.raises(
        NoriaError, match=f"{trained},? .*which is not installed|needs .*, which is not installed"
    ) as told:
        back(kept, tmp_path)
    assert "pip install" in told.value.hint


def test_every_damaged_file_is_an_error_and_not_a_crash(gaps: Any, target: Any, tmp_path: Path) -> None:
    """Read in a process of its own, which must live: LightGBM aborts or hangs on texts whose structure isn't sound."""
    models = [
        lgb.LGBMClassifier(**LIGHT).fit(gaps, bands(target)),
        xgb.XGBClassifier(**XGB).fit(gaps, truth(target)),
        cat.CatBoostClassifier(**CAT).fit(gaps, truth(target)),
        RandomForestClassifier(**FOREST).fit(gaps, truth(target)),
        HistGradientBoostingClassifier(max_iter=3).fit(gaps, truth(target)),
    ]
    for number, model in enumerate(models):
        kept = keep(model, STRICT)
        (tmp_path / f"{number}.pkl").write_bytes(pickle.dumps(kept))
    program = Path(__file__).with_name("damaged_files.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.returncode}: {done.stdout[-1500:]}{done.stderr[-1500:]}"
    assert done.stdout.splitlines()[-1].startswith("told ")
