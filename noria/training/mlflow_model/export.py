"""A version as a model directory of MLflow's."""

from __future__ import annotations

import json
import os
import platform
import shutil
import uuid
from pathlib import Path
from typing import Any

from noria.core import ConfigError, Schema, StorageError, to_iso
from noria.registry import ModelRegistry, ModelVersion
from noria.storage import Workspace
from noria.training.estimator import output_types
from noria.training.formats import estimator_of
from noria.training.formats.keeping import DISTRIBUTIONS, library_version
from noria.training.formats.skops_zip import trusted_types
from noria.training.mlflow_model.mlmodel import DATA, FILE, VERSION, columns_of, yaml

_EXTRAS = ("lightgbm", "xgboost", "catboost")
_FLAVORS = {"skops": "sklearn", "lightgbm": "lightgbm", "xgboost": "xgboost", "catboost": "catboost"}


def export_version(workspace: Workspace, version: ModelVersion, folder: Path) -> Path:
    """Write a version as a model of MLflow's, whole or not at all; gives the folder.

    Raises:
        ConfigError: the folder exists, or the version is no model of tables.
        NoriaError: the model can't be loaded here.
    """
    if version.servable != "tabular":
        raise ConfigError(
            f"model {version.label} is a {version.servable}, and only models of tables can be exported",
            hint="name a version that `noria predict` answers with",
        )
    if folder.exists():
        raise ConfigError(f"{folder} is there already", hint="name a folder that isn't")
    estimator = estimator_of(version, workspace)  # so that nothing is exported that can't be loaded
    outputs = output_types(estimator)
    half = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        (half / DATA).mkdir(parents=True)
        _write(workspace, version, outputs, half)
        half.replace(folder)
    except OSError as error:
        raise StorageError(f"{folder} can't be written: {error}", hint="is the disk full?") from error
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return folder


def _write(workspace: Workspace, version: ModelVersion, outputs: dict[str, str], folder: Path) -> None:
    schema = Schema.of(version.spec["inputs"])
    model = version.spec.get("model") or {"format": "pickle", "libraries": {}}
    for name, file in ModelRegistry.of(workspace).files(version).items():
        if name.startswith("model."):
            shutil.copyfile(file, folder / DATA / name)
    spec = {"model": model, "inputs": version.spec["inputs"], "steps": version.spec["steps"]}
    example = (version.signature.example or {}).get("instances", [])
    kept = {
        "label": version.label,
        "spec": spec,
        "metrics": version.metrics,
        "outputs": version.signature.outputs,
        "example": example,
    }
    _json(folder / DATA / VERSION, kept)
    libraries = {DISTRIBUTIONS.get(name, name): number for name, number in model["libraries"].items()}
    requirements = _requirements(model["libraries"], libraries)
    (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
    _yaml(folder / "conda.yaml", _conda(requirements))
    python = {
        "python": platform.python_version(),
        "build_dependencies": ["pip"],
        "dependencies": ["-r requirements.txt"],
    }
    _yaml(folder / "python_env.yaml", python)
    document = {
        "flavors": _flavors(version, schema, model, folder),
        "model_uuid": uuid.uuid5(uuid.NAMESPACE_URL, f"noria:{version.label}:{version.run_id}").hex,
        "utc_time_created": to_iso(version.created)[:19].replace("T", " "),
        "signature": {"inputs": columns_of(schema), "outputs": _outputs(outputs), "params": None},
        "metadata": {"noria": version.label, "metrics": json.dumps(version.metrics)},
    }
    if example:
        document["saved_input_example_info"] = _examples(folder, schema, example)
    _yaml(folder / FILE, document)


def _flavors(version: ModelVersion, schema: Schema, model: dict[str, Any], folder: Path) -> dict[str, Any]:
    flavors: dict[str, Any] = {
        "python_function": {
            "loader_module": "noria.training.mlflow_model.pyfunc",
            "data": DATA,
            "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
            "python_version": platform.python_version(),
        },
        DATA: {"data": DATA, "noria_version": library_version("noria"), "format": model["format"]},
    }
    # A native flavor gets the columns as they are, so that it would be wrong where steps are between.
    is_plain = not version.spec["steps"] and all(field.is_number or field.dtype == "bool" for field in schema)
    native = _FLAVORS.get(model["format"])
    # The library's own file says codes where the target's classes are others, and noria's part of it says the classes.
    if is_plain and native and not model["class"].endswith(".ByCodes"):
        flavors[native] = _native(native, model, folder)
    return flavors


def _native(flavor: str, model: dict[str, Any], folder: Path) -> dict[str, Any]:
    libraries, kind = model["libraries"], model["class"]
    if flavor == "lightgbm":
        found = {"lgb_version": libraries[flavor], "data": f"{DATA}/model.txt", "model_class": "lightgbm.basic.Booster"}
    elif flavor == "xgboost":
        found = {
            "xgb_version": libraries[flavor],
            "data": f"{DATA}/model.ubj",
            "model_class": kind,
            "model_format": "ubj",
        }
    elif flavor == "catboost":
        found = {"catboost_version": libraries[flavor], "data": f"{DATA}/model.cbm", "save_format": "cbm"}
        found["model_type"] = kind.rpartition(".")[2]
    else:
        types = trusted_types((folder / DATA / "model.skops").read_bytes())
        found = {"sklearn_version": libraries["sklearn"], "pickled_model": f"{DATA}/model.skops"}
        return {**found, "serialization_format": "skops", "skops_trusted_types": types, "code": None}
    return {**found, "code": None}


def _requirements(modules: dict[str, str], libraries: dict[str, str]) -> list[str]:
    extras = [name for name in modules if name in _EXTRAS]
    wanted = f"[{','.join(extras)}]" if extras else ""
    own = f"noria{wanted}=={library_version('noria')}"
    return ["mlflow>=3", own, *(f"{name}=={number}" for name, number in sorted(libraries.items()))]


def _conda(requirements: list[str]) -> dict[str, Any]:
    python = f"python={platform.python_version()}"
    return {"name": "noria", "channels": ["conda-forge"], "dependencies": [python, "pip", {"pip": requirements}]}


def _outputs(outputs: dict[str, str]) -> str:
    kinds = {"bool": "boolean", "int64": "long", "float64": "double", "str": "string"}
    names = {"predictions": "prediction", "scores": "score"}
    return json.dumps([{"type": kinds[kind], "name": names[name], "required": True} for name, kind in outputs.items()])


def _examples(folder: Path, schema: Schema, rows: list[dict[str, Any]]) -> dict[str, Any]:
    split = {"columns": list(schema.names), "data": [[row.get(name) for name in schema.names] for row in rows]}
    _json(folder / "input_example.json", split)
    _json(folder / "serving_input_example.json", {"dataframe_split": split})
    return {
        "artifact_path": "input_example.json",
        "serving_input_path": "serving_input_example.json",
        "type": "dataframe",
        "pandas_orient": "split",
    }


def _json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=1, default=str), "utf-8")


def _yaml(file: Path, value: Any) -> None:
    file.write_text(yaml().safe_dump(value, sort_keys=False, allow_unicode=True), "utf-8")
