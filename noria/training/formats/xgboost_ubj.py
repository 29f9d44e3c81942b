"""XGBoost: its own UBJSON, and the facts of its scikit-learn interface."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noria.training.categorical import ByCodes, library_model
from noria.training.formats.facts import FILE, damaged, dump_facts, load_facts
from noria.training.formats.format import UnkeepableError, type_name
from noria.training.formats.sound_xgboost import check_xgboost

UBJ = "model.ubj"
CLASSES = tuple(
    f"xgboost.sklearn.{kind}"
    for kind in ("XGBClassifier", "XGBRegressor", "XGBRanker", "XGBRFClassifier", "XGBRFRegressor")
)


class XgBoost:
    """Keeps the `Format` contract for XGBoost's estimators, also `ByCodes`. A subclass may compute something else."""

    name = "xgboost"
    files: tuple[str, ...] = (UBJ, FILE)

    def takes(self, estimator: Any) -> bool:
        return type_name(library_model(estimator)) in CLASSES

    def libraries(self, estimator: Any) -> set[str]:
        return {"xgboost"}

    def dump(self, estimator: Any) -> dict[str, bytes]:
        classes = getattr(estimator, "classes_", None) if isinstance(estimator, ByCodes) else None
        estimator = library_model(estimator)
        if not estimator.__sklearn_is_fitted__():
            raise UnkeepableError("it isn't fitted")
        facts = {
            "classes": classes,
            "class": type_name(estimator),
            "parameters": _parameters(estimator),
            "evals_result": getattr(estimator, "evals_result_", None),
        }
        data = bytes(estimator.get_booster().save_raw("ubj"))
        return {UBJ: data, FILE: dump_facts(facts, data)}

    def load(self, files: Mapping[str, Path]) -> Any:
        facts = load_facts(files[FILE], files[UBJ], "class", "parameters")
        if facts["class"] not in CLASSES:
            raise damaged(f"{facts['class']} is no class of XGBoost that is known")
        estimator = read_estimator(files[UBJ], facts["class"], facts["parameters"])
        for name, value in facts["parameters"].items():
            setattr(estimator, name, value)  # as they were given, not as the file spells them out
        if facts.get("evals_result"):
            estimator.evals_result_ = facts["evals_result"]
        return estimator if facts.get("classes") is None else ByCodes(estimator, (), facts["classes"])


def read_estimator(file: Path, kind: str, parameters: Mapping[str, Any]) -> Any:
    """An estimator of a class of XGBoost's with the trees of a file.

    Raises:
        DataError: the file is damaged.
    """
    import xgboost

    estimator = getattr(xgboost.sklearn, kind.rpartition(".")[2])(**parameters)
    data = file.read_bytes()
    if not data.lstrip().startswith(b'{"'):  # else it is XGBoost's JSON, of which its reader tells what is wrong
        check_xgboost(data)
    try:
        estimator.load_model(bytearray(data))
    except (xgboost.core.XGBoostError, TypeError, KeyError, ValueError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise damaged(f"XGBoost can't read {file.name}: {said[0]}") from error
    return estimator


def _parameters(estimator: Any) -> dict[str, Any]:
    """As given; a metric that is a function has done its work once the model is fitted."""
    given: dict[str, Any] = estimator.get_params()
    return {name: None if name in ("callbacks", "eval_metric") and _is_code(v) else v for name, v in given.items()}


def _is_code(value: Any) -> bool:
    return (
        callable(value)
        or (isinstance(value, (list, tuple)) and any(map(_is_code, value)))
        or hasattr(value, "after_iteration")
    )
