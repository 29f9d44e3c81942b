"""What MLflow calls to load an exported version: the `loader_module` of its flavor `python_function`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from noria.core import Schema, Settings
from noria.pipelines import steps_from_dict
from noria.training.fast import predictor_of
from noria.training.formats import restore
from noria.training.inputs import ModelInputs
from noria.training.mlflow_model.mlmodel import VERSION


class Model:
    """An exported version as MLflow sees it: a pandas frame in, a pandas frame out."""

    def __init__(self, inputs: ModelInputs, estimator: Any) -> None:
        self.inputs = inputs
        self._predictor = predictor_of(estimator)

    def predict(self, model_input: Any, params: Any = None) -> Any:
        """A column `prediction`, and `score`, the second class's probability, where two classes are told apart."""
        import pandas

        columns = [_plain(model_input[field.name], field.dtype.startswith("int")) for field in self.inputs.schema]
        matrix = self.inputs.matrix(self.inputs.frame(list(zip(*columns, strict=True))))
        predicted, scores = self._predictor.predict(matrix)
        return pandas.DataFrame({"prediction": predicted, **({} if scores is None else {"score": scores})})


def _load_pyfunc(path: str) -> Model:
    folder = Path(path)
    kept = json.loads((folder / VERSION).read_text("utf-8"))
    spec = kept["spec"]
    files = {file.name: file for file in folder.iterdir()}
    estimator = restore(spec["model"], files, Settings.load(folder), f"model {kept['label']}")
    return Model(ModelInputs(Schema.of(spec["inputs"]), tuple(steps_from_dict(spec["steps"]))), estimator)


def _plain(column: Any, is_whole: bool) -> list[Any]:
    """Values without pandas' many ways to be missing; whole numbers are whole again."""
    values = column.astype(object).where(column.notna(), None).tolist()
    return [int(value) if is_whole and value is not None else value for value in values]
