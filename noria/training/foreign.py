"""A model that was trained elsewhere as a version: its columns are numbers, and it reads them by position."""

from __future__ import annotations

import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import DataError, NoriaError, Schema
from noria.registry import Lineage, ModelRegistry, ModelVersion, Signature, code_state
from noria.storage import Workspace
from noria.training.estimator import output_types, scores
from noria.training.formats import keep
from noria.training.formats.onnx_graph import read_graph
from noria.training.inputs import check_names


def import_onnx(workspace: Workspace, file: Path, name: str) -> ModelVersion:
    """Register a file in ONNX under a name; importing the same bytes twice registers once.

    Raises:
        DataError: it can't be read, or isn't a model of columns of numbers.
        MissingExtraError: ONNX isn't installed.
    """
    try:
        run_id = f"onnx-{sha256(file.read_bytes()).hexdigest()[:32]}"
        estimator = read_graph(file)
    except OSError as error:
        raise DataError(f"{file} can't be read: {error.strerror}", hint="is that its name?") from error
    schema = Schema.of(dict.fromkeys(estimator.names, "float64?"))
    return register_estimator(workspace, name, estimator, schema, file, run_id)


def register_estimator(
    workspace: Workspace, name: str, estimator: Any, schema: Schema, where: Path, run_id: str
) -> ModelVersion:
    """Register a fitted estimator that reads the columns of `schema`, after it has answered for a row.

    Raises:
        ConfigError: it can only be kept as a pickle, and the project doesn't trust those.
        DataError: it can't predict for a matrix of numbers.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _try(estimator, np.stack([np.zeros(len(schema.names)), np.ones(len(schema.names))]))
    except NoriaError:
        raise
    except Exception as error:  # whatever its library raises
        raise DataError(
            f"the model in {where} can't predict for a matrix of {len(schema.names)} numbers: {error}",
            hint="noria's models read numbers by position; a model that selects columns by name can't be imported",
        ) from error
    kept = keep(estimator, workspace.settings)
    outputs = {"prediction": output_types(estimator)["predictions"]}
    signature = Signature(schema.to_dict(), outputs)
    return register_files(workspace, name, kept.files, spec_of(kept.spec, schema.to_dict(), []), signature, run_id, {})


def _try(estimator: Any, rows: NDArray[np.float64]) -> None:
    """Whether it answers as a version has to.

    Raises:
        DataError: with something else than one value for each row, or probabilities that are none.
    """
    predicted = np.asarray(estimator.predict(rows))
    if predicted.size != len(rows):
        raise DataError(
            f"the model answers with an array {list(predicted.shape)} for {len(rows)} rows",
            hint="noria's models give one value for each row",
        )
    if "scores" not in output_types(estimator):
        return
    given = scores(estimator, rows)
    if given is None or not ((given >= 0) & (given <= 1)).all():
        raise DataError(
            f"the model says that {given} are probabilities",
            hint="export it with probabilities instead of raw scores, or wrap it in CalibratedClassifierCV",
        )


def register_files(
    workspace: Workspace,
    name: str,
    files: dict[str, bytes],
    spec: dict[str, Any],
    signature: Signature,
    run_id: str,
    metrics: dict[str, Any],
) -> ModelVersion:
    """Register what has been kept; the same `run_id` registers once.

    Raises:
        ConfigError: an input has a name that no request could have.
    """
    check_names(signature.inputs)
    return ModelRegistry.of(workspace).register(
        name,
        files,
        servable="tabular",
        run_id=run_id,
        spec=spec,
        metrics=metrics,
        signature=signature,
        lineage=Lineage(code=code_state(workspace.settings.root)),
    )


def spec_of(model: dict[str, Any], inputs: dict[str, str], steps: list[Any]) -> dict[str, Any]:
    """What a version without look-ups tells its servable: a request has the inputs."""
    return {
        "model": model,
        "inputs": inputs,
        "columns": list(inputs),
        "steps": steps,
        "groups": [],
        "entities": {},
        "on_demand": [],
    }
