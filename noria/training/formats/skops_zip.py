"""skops: scikit-learn's estimators as a zip of arrays and a description, of which only known types are made again."""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any
from zipfile import ZipFile, ZipInfo

from noria.core import DataError
from noria.training.formats.facts import damaged
from noria.training.formats.format import UnkeepableError
from noria.training.formats.sound_trees import check_lightgbm, check_sklearn, parts_of

FILE = "model.skops"
_SCHEMA = "schema.json"
_LIBRARIES = ("sklearn", "lightgbm", "xgboost", "catboost", "numpy", "scipy")
TRUSTED = frozenset(
    {
        "collections.OrderedDict", "collections.defaultdict", "functools.partial",
        "numpy.dtype", "numpy.random.mtrand.RandomState",
        "sklearn.calibration._CalibratedClassifier", "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.ensemble._hist_gradient_boosting.binning._BinMapper",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
        "sklearn.tree._tree.Tree", "sklearn.utils._bunch.Bunch", "sklearn.utils.validation.check_array",
        "sklearn.metrics._dist_metrics.EuclideanDistance64", "sklearn.metrics._dist_metrics.EuclideanDistance",
        "sklearn.neighbors._kd_tree.KDTree64", "sklearn.neighbors._ball_tree.BallTree64",
        "sklearn.neighbors._kd_tree.KDTree", "sklearn.neighbors._ball_tree.BallTree",
        "lightgbm.basic.Booster", "lightgbm.compat._LGBMLabelEncoder",
        "lightgbm.sklearn.LGBMClassifier", "lightgbm.sklearn.LGBMRegressor", "lightgbm.sklearn.LGBMRanker",
        "xgboost.core.Booster", "xgboost.sklearn.XGBClassifier", "xgboost.sklearn.XGBRegressor",
        "noria.training.distributed.ensembles.Stacked", "noria.training.distributed.ensembles.Voted",
        "xgboost.sklearn.XGBRanker", "xgboost.sklearn.XGBRFClassifier", "xgboost.sklearn.XGBRFRegressor",
    }
)  # fmt: skip
"""Types beside scikit-learn's estimators, losses and links: making one of them from numbers and text runs no code of
the file's writer. The trees among them are looked at after they are made."""

_importing = Lock()


class Skops:
    """Keeps the `Format` contract for whatever is made of known types: estimators of scikit-learn above all."""

    name = "skops"
    files: tuple[str, ...] = (FILE,)

    def takes(self, estimator: Any) -> bool:
        return True

    def libraries(self, estimator: Any) -> set[str]:
        found = {type(part).__module__.partition(".")[0] for part in parts_of(estimator)}
        return {"sklearn", *found.intersection(_LIBRARIES)} - {"numpy"}

    def dump(self, estimator: Any) -> dict[str, bytes]:
        io_ = _skops()
        try:
            data = io_.dumps(estimator)
        except Exception as error:  # whatever a part's own way of telling its state raises
            raise UnkeepableError(f"skops can't write it: {error}") from error
        if unknown := _unknown(data):
            raise UnkeepableError(f"it has a {unknown[0]}")
        return {FILE: _settled(data)}

    def load(self, files: Mapping[str, Path]) -> Any:
        data = files[FILE].read_bytes()
        if unknown := _unknown(data):
            raise DataError(
                f"{FILE} has types that noria doesn't trust: {', '.join(unknown)}",
                hint="a model of such types is kept as a pickle, by those who trust its writer; "
                "see docs/models.md, How a model is kept",
            )
        try:
            with warnings.catch_warnings():
                # Versions have been compared by what the model version says.
                warnings.filterwarnings("ignore", message="Trying to unpickle estimator")
                estimator = _skops().loads(data, trusted=sorted(_named(data)))
        except ModuleNotFoundError:
            raise
        except Exception as error:  # skops builds what the description says, and each type refuses in its own words
            raise damaged(f"skops can't read {FILE}: {error}") from error
        check_sklearn(estimator)
        for part in parts_of(estimator):
            if type(part).__module__ == "lightgbm.basic" and type(part).__name__ == "Booster":
                check_lightgbm(part.model_to_string(num_iteration=-1))
        return estimator


def trusted_types(data: bytes) -> list[str]:
    """The types in a file that a reader has to trust beside those that skops trusts."""
    return sorted(set(_skops().get_untrusted_types(data=data)))


def _skops() -> Any:
    """skops.io, imported without its walk through all modules of scikit-learn.

    The walk collects the names of estimators, takes seconds, and imports PyTorch where that is installed. Which
    estimators are trusted is decided here, by the names that a file has.
    """
    with _importing:  # also where it is being imported: a module is known by name before it is whole
        if "skops.io" not in sys.modules:
            import sklearn.utils

            walk = sklearn.utils.all_estimators
            sklearn.utils.all_estimators = list
            try:
                import_module("skops.io")
            finally:
                sklearn.utils.all_estimators = walk
        return sys.modules["skops.io"]


def _unknown(data: bytes) -> list[str]:
    """The types in a file that neither skops nor noria trusts.

    Raises:
        DataError: it is no such file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [name for name in trusted_types(data) if not _is_trusted(name)]
    except ModuleNotFoundError:
        raise
    except Exception as error:  # a zip can be wrong in as many ways as a description
        raise damaged(f"skops can't read {FILE}: {error}") from error


def _is_trusted(name: str) -> bool:
    """Whether it is on the list, or an estimator of scikit-learn itself."""
    if name in TRUSTED:
        return True
    module, _, kind = name.rpartition(".")
    if not module.startswith("sklearn."):
        return False
    from sklearn.base import BaseEstimator

    try:
        found = getattr(import_module(module), kind, None)
    except ImportError:
        return False
    return isinstance(found, type) and issubclass(found, BaseEstimator)


def _named(data: bytes) -> list[str]:
    return [name for name in trusted_types(data) if _is_trusted(name)]


def _settled(data: bytes) -> bytes:
    """The same file with plain numbers where skops writes memory addresses: equal models give equal bytes."""
    source = ZipFile(io.BytesIO(data))
    schema = json.loads(source.read(_SCHEMA))
    numbers: dict[Any, int] = {}
    names: dict[str, str] = {}
    for node in _nodes(schema):
        if "__id__" in node:
            node["__id__"] = numbers.setdefault(node["__id__"], len(numbers))
        file = node.get("file")
        if isinstance(file, str):
            node["file"] = names.setdefault(file, f"{len(names)}{Path(file).suffix}")
    made = io.BytesIO()
    with ZipFile(made, "w") as target:
        for old, new in names.items():
            target.writestr(ZipInfo(new), source.read(old))
        target.writestr(ZipInfo(_SCHEMA), json.dumps(schema, separators=(",", ":")))
    return made.getvalue()


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All objects of the description, in the order in which they stand there."""
    stack = [value]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            yield one
            stack += reversed(one.values())
        elif isinstance(one, list):
            stack += reversed(one)
