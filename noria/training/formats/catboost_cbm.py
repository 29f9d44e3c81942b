"""CatBoost: its own binary file, which knows its classes, and the parameters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from noria.training.categorical import ByCodes, library_model
from noria.training.formats.facts import FILE, damaged, dump_facts, load_facts
from noria.training.formats.format import UnkeepableError, type_name

CBM = "model.cbm"
CLASSES = tuple(
    f"catboost.core.{kind}" for kind in ("CatBoost", "CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker")
)


class CatBoost:
    """Keeps the `Format` contract for CatBoost's estimators, also `ByCodes`. A subclass may compute something else."""

    name = "catboost"
    files: tuple[str, ...] = (CBM, FILE)

    def takes(self, estimator: Any) -> bool:
        return type_name(library_model(estimator)) in CLASSES

    def libraries(self, estimator: Any) -> set[str]:
        return {"catboost"}

    def dump(self, estimator: Any) -> dict[str, bytes]:
        codes = None
        if isinstance(estimator, ByCodes):
            codes = [list(estimator.categories), getattr(estimator, "classes_", None)]
            estimator = estimator.model
        if not estimator.is_fitted():
            raise UnkeepableError("it isn't fitted")
        facts = {
            "codes": codes,
            "class": type_name(estimator),
            "parameters": estimator.get_params(),
            "evals_result": estimator.get_evals_result() or None,
        }
        with TemporaryDirectory() as folder:
            file = Path(folder) / CBM
            estimator.save_model(str(file), format="cbm")
            data = file.read_bytes()
        return {CBM: data, FILE: dump_facts(facts, data)}

    def load(self, files: Mapping[str, Path]) -> Any:
        facts = load_facts(files[FILE], files[CBM], "class", "parameters")
        model = read_estimator(files[CBM], facts["class"], facts["parameters"])
        codes = facts.get("codes")
        return model if codes is None else ByCodes(model, tuple(codes[0]), codes[1])


def read_estimator(file: Path, kind: str, parameters: Mapping[str, Any]) -> Any:
    """An estimator of a class of CatBoost's with the trees of a file.

    Raises:
        DataError: the file is damaged.
    """
    import catboost

    if kind not in CLASSES:
        raise damaged(f"{kind} is no class of CatBoost that is known")
    estimator = getattr(catboost, kind.rpartition(".")[2])(**parameters)
    try:
        return estimator.load_model(str(file), format="cbm")
    except catboost.CatBoostError as error:
        raise damaged(f"CatBoost can't read {file.name}: {str(error).splitlines()[0]}") from error
