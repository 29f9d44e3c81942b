"""The file `MLmodel`: flavors, and the signature in MLflow's types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from noria.core import DataError, MissingExtraError, Schema
from noria.core.schema import Field

FILE = "MLmodel"
DATA = "noria"
"""The folder of an exported version, and the name of its flavor."""
VERSION = "version.json"

_TO_MLFLOW = {
    "bool": "boolean", "float32": "float", "float64": "double", "int8": "integer", "int16": "integer",
    "int32": "integer", "int64": "long", "str": "string", "uuid": "string",
}  # fmt: skip
_FROM_MLFLOW = {
    "boolean": "bool", "integer": "int32", "long": "int64", "float": "float32", "double": "float64", "string": "str",
    "int8": "int8", "int16": "int16", "int32": "int32", "int64": "int64", "float32": "float32", "float64": "float64",
    "bool": "bool",
}  # fmt: skip


def yaml() -> Any:
    """PyYAML.

    Raises:
        MissingExtraError: it isn't installed.
    """
    try:
        import yaml as library
    except ImportError as error:
        raise MissingExtraError("PyYAML", "mlflow", "MLflow's format") from error
    return library


def columns_of(schema: Schema) -> str:
    """A schema as MLflow's inputs, in JSON.

    Raises:
        DataError: a column is of a type that MLflow has no word for.
    """
    return json.dumps([_column(field) for field in schema])


def schema_of(inputs: str) -> Schema:
    """The reverse; a tensor [rows, n] becomes the columns `f0`, `f1`…

    Raises:
        DataError: a column isn't a number, or the inputs aren't columns.
    """
    specs: dict[str, str] = {}
    parts = json.loads(inputs)
    for number, part in enumerate(parts):
        if part["type"] == "tensor":
            shape = part["tensor-spec"]["shape"]
            if len(parts) != 1 or len(shape) != 2 or shape[1] < 1:
                raise DataError(f"a model of tensors of shape {shape} is not one of tables", hint="export another one")
            kind = _FROM_MLFLOW.get(part["tensor-spec"]["dtype"], "")
            specs = {f"f{column}": _number(kind, part["tensor-spec"]["dtype"], "tensor") for column in range(shape[1])}
        else:
            name = str(part.get("name") or f"f{number}")
            kind = _number(_FROM_MLFLOW.get(part["type"], ""), part["type"], name)
            specs[name] = kind if part.get("required", not part.get("optional", False)) else f"{kind}?"
    return Schema.of(specs)


def read(folder: Path) -> dict[str, Any]:
    """What `MLmodel` in a folder says.

    Raises:
        DataError: there is none, or it isn't one.
    """
    file = folder / FILE
    try:
        if file.exists() and not file.is_file():
            raise OSError(f"{FILE} is no file")
        found = yaml().safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{folder} is no model of MLflow: {error}", hint="name the folder in which MLmodel is"
        ) from error
    except (yaml().YAMLError, ValueError, RecursionError) as error:  # a day such as 2020-13-45; a thousand brackets
        raise DataError(f"{file} is not valid YAML: {error}") from error
    flavors = found.get("flavors") if isinstance(found, dict) else None
    if not isinstance(flavors, dict) or not all(isinstance(one, dict) for one in flavors.values()):
        raise DataError(f"{file} has no flavors", hint="it is not a model of MLflow")
    if not isinstance(found.get("signature") or {}, dict):
        raise DataError(f"{file} has a signature that is none", hint="log it with one: mlflow.models.infer_signature")
    return dict(found)


def inside(folder: Path, name: Any, *, is_folder: bool = False) -> Path:
    """A file of the model, or a folder in it.

    Raises:
        DataError: it isn't there, or not in the folder.
    """
    try:
        file = (folder / str(name)).resolve()
        # A pipe or a device would be waited for, or read without an end.
        is_there = file.is_dir() if is_folder else file.is_file()
        is_ours = file.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name that is too long or has a zero; links in a circle
        is_there = is_ours = False
    if not (is_there and is_ours):
        kind = "folder" if is_folder else "file"
        raise DataError(f"{folder / FILE} names {name!r}, which is not a {kind} of the model")
    return file


def _column(field: Field) -> dict[str, Any]:
    kind = _TO_MLFLOW.get(field.dtype)
    if kind is None:
        raise DataError(f"the input {field.name!r} is {field.dtype}, which MLflow's signatures don't know")
    if field.nullable and kind in ("integer", "long"):
        kind = "double"  # a missing whole number arrives as NaN in pandas
    return {"type": kind, "name": field.name, "required": not field.nullable}


def _number(kind: str, said: str, name: str) -> str:
    if not kind or kind == "str":
        raise DataError(
            f"the model's input {name!r} is a {said}, and noria's models read numbers",
            hint="train it in a pipeline, whose steps encode text, or import the part behind its encoder",
            field=name,
        )
    return kind
