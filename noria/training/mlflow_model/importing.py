"""A model directory of MLflow's as a version."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import polars as pl

from noria.core import ConfigError, DataError, MissingExtraError, NoriaError, Schema, Settings, allowed
from noria.pipelines import steps_from_dict
from noria.pipelines.dtypes import polars_schema
from noria.registry import ModelVersion, Signature
from noria.storage import Workspace
from noria.training.foreign import register_estimator, register_files, spec_of
from noria.training.formats import catboost_cbm, lightgbm_text, restore, xgboost_ubj
from noria.training.formats.onnx_graph import read_graph
from noria.training.formats.skops_zip import FILE as SKOPS
from noria.training.formats.skops_zip import Skops
from noria.training.inputs import ModelInputs
from noria.training.mlflow_model.mlmodel import DATA, FILE, VERSION, inside, read, schema_of

Conf = dict[str, Any]


def import_model(workspace: Workspace, folder: Path, name: str) -> ModelVersion:
    """Register a model of MLflow's under a name; importing the same files twice registers once.

    Raises:
        ConfigError: it is a pickle, and the project doesn't trust those.
        DataError: it isn't a model of MLflow's that reads columns of numbers, or is damaged.
    """
    document = read(folder)
    flavors: Conf = document["flavors"]
    run_id = f"mlflow-{_digest(folder)}"
    if DATA in flavors:
        return _ours(workspace, folder, flavors[DATA], name, run_id)
    flavor = next((one for one in _LOADERS if one in flavors), None)
    if flavor is None:
        raise DataError(
            f"{folder / FILE} has the flavors {', '.join(map(str, flavors))}, and noria reads none of them",
            hint=allowed([*_LOADERS, DATA]),
        )
    try:
        estimator = _LOADERS[flavor](folder, flavors[flavor], workspace.settings)
    except ModuleNotFoundError as error:
        raise MissingExtraError(str(error.name), flavor, f"{folder}") from error
    schema = _schema(document, estimator)
    _forget_names(estimator)
    return register_estimator(workspace, name, estimator, schema, folder, run_id)


def _ours(workspace: Workspace, folder: Path, conf: Conf, name: str, run_id: str) -> ModelVersion:
    """A version that noria has exported: with its steps, and the same bits."""
    data = inside(folder, conf.get("data"), is_folder=True)
    try:
        kept = json.loads((data / VERSION).read_text("utf-8"))
        spec, example = kept["spec"], kept["example"]
        inputs, steps, metrics = dict(spec["inputs"]), list(spec["steps"]), dict(kept["metrics"])
        signature = Signature(inputs, kept["outputs"], {"instances": example} if example else {})
        files = {file.name: inside(folder, file.resolve()) for file in data.iterdir() if file.name.startswith("model.")}
        estimator = restore(spec["model"], files, workspace.settings, f"the model in {folder}")
        reading = ModelInputs(Schema.of(inputs), tuple(steps_from_dict(steps)))
        if example:
            rows = pl.DataFrame(example, schema=polars_schema(reading.schema), strict=False)
            estimator.predict(reading.matrix(rows))
    except NoriaError:
        raise
    except Exception as error:  # whatever is wrong, a version that can't answer isn't registered
        raise DataError(f"{data / VERSION} can't be read: {error}", hint="export the version again") from error
    contents = {file: path.read_bytes() for file, path in files.items()}
    return register_files(workspace, name, contents, spec_of(spec["model"], inputs, steps), signature, run_id, metrics)


def _schema(document: Conf, estimator: Any) -> Schema:
    """The inputs by the signature, or by what the estimator remembers."""
    inputs = (document.get("signature") or {}).get("inputs")
    if inputs:
        try:
            return schema_of(inputs)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(
                f"the signature in {FILE} can't be read: {error}", hint="log it again: mlflow.models.infer_signature"
            ) from error
    names = getattr(estimator, "feature_names_in_", None)
    count = getattr(estimator, "n_features_in_", 0)
    if names is None and not count:
        raise DataError("the model has no signature", hint="log it with one: mlflow.models.infer_signature")
    return Schema.of(
        dict.fromkeys(map(str, names if names is not None else [f"f{n}" for n in range(count)]), "float64?")
    )


def _forget_names(estimator: Any) -> None:
    """Names of columns: noria's schema has them, and hands the estimator a matrix."""
    for part in (estimator, *(step for _, step in getattr(estimator, "steps", ()))):
        vars(part).pop("feature_names_in_", None)


def _digest(folder: Path) -> str:
    found = sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{file.relative_to(folder)}\0".encode() + sha256(file.read_bytes()).digest())
    return found.hexdigest()[:32]


def _sklearn(folder: Path, conf: Conf, settings: Settings) -> Any:
    return _serialized(inside(folder, conf.get("pickled_model", conf.get("data"))), conf, settings)


def _lightgbm(folder: Path, conf: Conf, settings: Settings) -> Any:
    file = inside(folder, conf.get("data"))
    if conf.get("model_class", lightgbm_text.BOOSTER) == lightgbm_text.BOOSTER:
        return lightgbm_text.read_booster(file)
    return _serialized(file, conf, settings)


def _xgboost(folder: Path, conf: Conf, settings: Settings) -> Any:
    kind = conf.get("model_class", "xgboost.core.Booster")
    # A booster's predictions are those of a regressor, whatever the objective.
    kind = "xgboost.sklearn.XGBRegressor" if kind == "xgboost.core.Booster" else kind
    if kind not in xgboost_ubj.CLASSES:
        raise DataError(f"{kind} is no class of XGBoost that is known", hint=allowed(xgboost_ubj.CLASSES, kind))
    return xgboost_ubj.read_estimator(inside(folder, conf.get("data")), kind, {})


def _catboost(folder: Path, conf: Conf, settings: Settings) -> Any:
    kind = f"catboost.core.{conf.get('model_type', 'CatBoost')}"
    return catboost_cbm.read_estimator(inside(folder, conf.get("data")), kind, {})


def _onnx(folder: Path, conf: Conf, settings: Settings) -> Any:
    return read_graph(inside(folder, conf.get("data")))


def _serialized(file: Path, conf: Conf, settings: Settings) -> Any:
    """A file of skops, or a pickle, if those are trusted."""
    form = conf.get("serialization_format", "cloudpickle")
    if form == "skops":
        return Skops().load({SKOPS: file})
    if not settings.registry.trust_pickles:
        raise ConfigError(
            f"{file} is a pickle, and reading one runs whatever code its writer wanted",
            hint="export it with serialization_format='skops', or, if you trust its writer: "
            "[registry] trust_pickles = true in noria.toml",
            field="registry.trust_pickles",
        )
    try:
        return pickle.loads(file.read_bytes())
    except ModuleNotFoundError:
        raise
    except Exception as error:  # a pickle can fail in any way that its classes can
        raise DataError(f"{file} can't be read: {error}", hint="it may need other versions of its libraries") from error


_LOADERS: dict[str, Callable[[Path, Conf, Settings], Any]] = {
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "catboost": _catboost,
    "sklearn": _sklearn,
    "onnx": _onnx,
}
