"""A model in ONNX as an estimator: read by ONNX Runtime, trained elsewhere.

Source: https://onnx.ai/onnx/repo-docs/IR.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError, DataError, MissingExtraError, allowed

NUMBERS = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
"""The types of inputs that a table's numbers are cast to."""
MOST_COLUMNS = 100_000
"""A graph can claim any number of them, and each one is named."""


class OnnxModel:
    """A graph that reads numbers, and answers with one value for each row.

    It reads either one tensor [rows, columns] or, for each column, one of [rows, 1] or [rows]. It answers with one
    number for each row or, for classes, with the label and their probabilities, as a tensor [rows, classes] or as
    mappings from label to probability, which is what converters write. Numbers are cast to the graph's types, which is
    mostly float32.

    Args:
        data: the file.
        classes: the labels in the order of the probabilities; None for a model that predicts numbers.

    Raises:
        DataError: ONNX Runtime can't read it, or the graph reads or answers with something else.
        MissingExtraError: ONNX Runtime isn't installed.
    """

    def __init__(self, data: bytes, classes: Sequence[Any] | None = None) -> None:
        self.data = data
        if classes is not None:
            self.classes_ = np.asarray(classes)
        self._columns = _columns(self._session.get_inputs())
        self._check_outputs([(one.type, one.shape) for one in self._session.get_outputs()])
        self.n_features_in_ = len(self.names)

    @cached_property
    def _session(self) -> Any:
        runtime = onnx_runtime("a model in ONNX")
        options = runtime.SessionOptions()
        # As for all models on a server: its replicas are what runs side by side.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        # Read from bytes, a graph can't name another file of this machine as its weights.
        try:
            return runtime.InferenceSession(self.data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no class of their own
            raise DataError(
                f"ONNX Runtime can't read the model: {_said(error)}",
                hint="is it whole, with its weights inside? onnx.checker.check_model tells",
            ) from error

    @property
    def names(self) -> list[str]:
        """The inputs' names; `f0`, `f1`… for the columns of one tensor."""
        return [name for _, names, _ in self._columns for name in names]

    def fit(self, X: Any, y: Any) -> OnnxModel:  # noqa: N803
        """Not possible.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a model in ONNX can't be trained", hint="train it where it comes from, and import it again")

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """One value for each row, [rows]: the label, or a float64."""
        labels = _shaped(self._run(X, slice(0, 1))[0], len(X), 1).reshape(len(X))
        return labels.astype(self.classes_.dtype) if hasattr(self, "classes_") else labels.astype(np.float64)

    def __getattr__(self, name: str) -> Any:
        if name == "predict_proba" and "classes_" in vars(self):
            return self._probabilities
        raise AttributeError(name)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def _probabilities(self, X: Any) -> NDArray[np.float64]:  # noqa: N803
        found = self._run(X, slice(1, 2))[0]
        if len(found) and isinstance(found[0], Mapping):
            found = [[row[label] for label in self.classes_.tolist()] for row in found]
        return _shaped(found, len(X), len(self.classes_)).astype(np.float64)

    def _run(self, X: Any, part: slice) -> list[Any]:  # noqa: N803
        matrix = np.asarray(X, dtype=np.float64)
        if matrix.ndim != 2 or matrix.shape[1] != self.n_features_in_:
            raise DataError(f"the model in ONNX reads {self.n_features_in_} columns, not a matrix of {matrix.shape}")
        feed, at = {}, 0
        for name, names, (kind, dimensions) in self._columns:
            piece = matrix[:, at : at + len(names)]
            feed[name] = _cast(piece, kind, names).reshape(piece.shape if dimensions == 2 else -1)
            at += len(names)
        wanted = [one.name for one in self._session.get_outputs()][part]
        try:
            return list(self._session.run(wanted, feed))
        except Exception as error:  # its errors have no class of their own
            raise DataError(f"the model in ONNX can't answer for {len(matrix)} rows: {_said(error)}") from error

    def _check_outputs(self, outputs: Sequence[tuple[str, Sequence[Any]]]) -> None:
        kind, shape = outputs[0]
        if hasattr(self, "classes_"):
            if len(outputs) < 2:
                raise DataError("the model in ONNX has labels and no probabilities", hint="export it with both")
            return
        if not kind.startswith("tensor(") or kind == "tensor(string)" or (len(shape) > 1 and shape[1:] != [1]):
            raise DataError(
                f"the model in ONNX answers with {kind} of shape {shape}, and noria's models with one number a row",
                hint="export it with one output of shape [rows] or [rows, 1], or as a classifier with labels",
            )


def onnx_runtime(needed_for: str) -> Any:
    """The module `onnxruntime`.

    Raises:
        MissingExtraError: it isn't installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise MissingExtraError("ONNX Runtime", "onnx", needed_for) from error
    return onnxruntime


def _columns(inputs: Sequence[Any]) -> list[tuple[str, list[str], tuple[Any, int]]]:
    """Of each input: its name, the names of its columns, its NumPy type and number of dimensions.

    Raises:
        DataError: an input isn't a table's columns.
    """
    found = []
    for one in inputs:
        if one.type not in NUMBERS:
            raise DataError(
                f"the model's input {one.name!r} is a {one.type}, and noria's imported models read numbers",
                hint=f"import the part behind its encoder; {allowed(NUMBERS)}",
                field=one.name,
            )
        width = one.shape[1] if len(one.shape) == 2 else 1 if len(one.shape) == 1 else None
        if not isinstance(width, int) or not 1 <= width <= MOST_COLUMNS or (len(inputs) > 1 and width != 1):
            raise DataError(
                f"the model's input {one.name!r} has the shape {one.shape}, which are not the columns of a table",
                hint="export it with one input of shape [rows, columns], or one of [rows, 1] for each column",
                field=one.name,
            )
        if isinstance(one.shape[0], int):
            raise DataError(
                f"the model's input {one.name!r} takes {one.shape[0]} rows and no other number of them",
                hint="export it with a free first dimension, in PyTorch: dynamic_shapes or dynamic_axes",
                field=one.name,
            )
        names = [one.name] if len(inputs) > 1 else [f"f{column}" for column in range(width)]
        found.append((one.name, names, (NUMBERS[one.type], len(one.shape))))
    return found


def _shaped(found: Any, rows: int, columns: int) -> NDArray[Any]:
    made = np.asarray(found)
    if made.size != rows * columns:
        raise DataError(
            f"the model in ONNX answers with an array {list(made.shape)} for {rows} rows, not with {columns} for each",
            hint="export it with one number for each row, or with labels and a probability for each class",
        )
    return made.reshape(rows, columns)


def _cast(piece: NDArray[np.float64], kind: Any, names: Sequence[str]) -> NDArray[Any]:
    if np.issubdtype(kind, np.floating):
        return np.ascontiguousarray(piece, dtype=kind)
    if np.isnan(piece).any():
        raise DataError(
            f"the model reads whole numbers from {', '.join(names)}, and one is missing",
            hint="give the column a value, or have the step Impute do it",
        )
    if kind is not np.bool_:
        limits = np.iinfo(kind)
        # As floats, the greatest int64 would be one too many.
        is_inside = (piece >= float(limits.min)) & (piece < float(limits.max) + (limits.bits < 64))
        if not is_inside.all():
            raise DataError(
                f"the model reads {kind.__name__} from {', '.join(names)}, and {piece[~is_inside][0]:g} is none",
                hint="mend the row, or limit the column in a step: nr.Clip([…], low=…, high=…)",
            )
    return np.ascontiguousarray(piece).astype(kind)


def _said(error: Exception) -> str:
    """What ONNX Runtime says, without the places in its own source."""
    lines = str(error).strip().splitlines()
    return lines[0].rpartition(" : ")[2] if lines else type(error).__name__


def labels_of(data: bytes) -> list[Any] | None:
    """The labels of the classes in a graph's last operator that has some; None if it predicts numbers.

    Raises:
        DataError: it isn't a graph of ONNX, or doesn't say all that its operators mean.
        MissingExtraError: the package `onnx` isn't installed.
    """
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise MissingExtraError("onnx", "onnx", "importing a model in ONNX") from error
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # of the package that reads its messages
        raise DataError(
            f"it is not a graph of ONNX: {_said(error)}", hint="name the file that ends in .onnx"
        ) from error
    known = {one.domain or "ai.onnx" for one in model.opset_import}
    for node in model.graph.node:
        domain = node.domain or "ai.onnx"
        if domain not in known:  # ONNX Runtime would take the newest; it is what a file that is cut off lacks
            raise DataError(
                f"it doesn't say of which version of {domain} its operator {node.op_type} is",
                hint="is the file whole? onnx.checker.check_model tells",
            )
    if len(model.graph.output) < 2:
        return None
    for node in reversed(model.graph.node):
        for one in node.attribute:
            if one.name.startswith("classlabels_") and (one.ints or one.strings):
                return list(one.ints) or [text.decode() for text in one.strings]
    return None
