"""LightGBM: its own text, which keeps every number exactly, and the facts of its scikit-learn interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noria.training.formats.facts import FILE, damaged, dump_facts, load_facts
from noria.training.formats.format import UnkeepableError, type_name
from noria.training.formats.sound_trees import check_lightgbm

TEXT = "model.txt"
BOOSTER = "lightgbm.basic.Booster"
_CLASSES = tuple(f"lightgbm.sklearn.{kind}" for kind in ("LGBMClassifier", "LGBMRegressor", "LGBMRanker", "LGBMModel"))
_FITTED = ("_n_features", "_n_features_in", "_fitted_with_feature_names", "_objective", "_best_iteration",
           "_best_score", "_evals_result", "_class_weight")  # fmt: skip


class LightGbm:
    """Keeps the `Format` contract for LightGBM's boosters and estimators. A subclass may compute something else."""

    name = "lightgbm"
    files: tuple[str, ...] = (TEXT, FILE)

    def takes(self, estimator: Any) -> bool:
        return type_name(estimator) in (*_CLASSES, BOOSTER)

    def libraries(self, estimator: Any) -> set[str]:
        return {"lightgbm"}

    def dump(self, estimator: Any) -> dict[str, bytes]:
        kind = type_name(estimator)
        booster = estimator if kind == BOOSTER else estimator._Booster
        if booster is None:
            raise UnkeepableError("it isn't fitted")
        facts: dict[str, Any] = {"class": kind, "booster": _booster_facts(booster)}
        if kind != BOOSTER:
            facts["parameters"] = estimator.get_params()
            facts["fitted"] = {name: getattr(estimator, name) for name in _FITTED}
            facts["classes"] = getattr(estimator, "_classes", None)
        data = booster.model_to_string(num_iteration=-1).encode()
        return {TEXT: data, FILE: dump_facts(facts, data)}

    def load(self, files: Mapping[str, Path]) -> Any:
        import lightgbm

        facts = load_facts(files[FILE], files[TEXT], "class", "booster")
        booster = read_booster(files[TEXT])
        for name, value in facts["booster"].items():
            setattr(booster, name, value)
        if facts["class"] == BOOSTER:
            return booster
        if facts["class"] not in _CLASSES or not {"parameters", "fitted"} <= facts.keys():
            raise damaged(f"{facts['class']} is no class of LightGBM that is known")
        estimator = getattr(lightgbm.sklearn, facts["class"].rpartition(".")[2])(**facts["parameters"])
        for name in _FITTED:
            setattr(estimator, name, facts["fitted"].get(name))
        estimator._Booster = booster
        estimator.fitted_ = True
        if facts.get("classes") is not None:
            set_classes(estimator, facts["classes"])
        return estimator


def read_booster(file: Path) -> Any:
    """The booster of a text, whose structure has been verified: LightGBM itself reads past its ends, or hangs.

    Raises:
        DataError: it is damaged.
    """
    import lightgbm

    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(f"{file.name} is no text") from error
    check_lightgbm(text)
    try:
        return lightgbm.Booster(model_str=text)
    except (lightgbm.basic.LightGBMError, ValueError) as error:
        raise damaged(f"LightGBM can't read {file.name}: {error}") from error


def set_classes(estimator: Any, classes: Any) -> None:
    """What a classifier of LightGBM's scikit-learn interface knows of its classes."""
    from sklearn.preprocessing import LabelEncoder

    encoder = LabelEncoder()
    encoder.classes_ = classes
    estimator._le = encoder
    estimator._classes = classes
    estimator._n_classes = len(classes)
    estimator._class_map = dict(zip(classes, range(len(classes)), strict=True))


def _booster_facts(booster: Any) -> dict[str, Any]:
    return {
        "best_iteration": booster.best_iteration,
        "best_score": {name: dict(scores) for name, scores in booster.best_score.items()},
        "params": booster.params,
        "pandas_categorical": booster.pandas_categorical,
    }
