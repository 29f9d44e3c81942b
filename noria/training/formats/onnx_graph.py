"""ONNX: the graph as it came, and the labels of its classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from noria.training.formats.facts import FILE, dump_facts, load_facts
from noria.training.formats.format import type_name

GRAPH = "model.onnx"
ESTIMATOR = "noria.training.onnx_model.OnnxModel"


class Onnx:
    """Keeps the `Format` contract for `OnnxModel`."""

    name = "onnx"
    files: tuple[str, ...] = (GRAPH, FILE)

    def takes(self, estimator: Any) -> bool:
        return type_name(estimator) == ESTIMATOR

    def libraries(self, estimator: Any) -> set[str]:
        return {"onnxruntime"}

    def dump(self, estimator: Any) -> dict[str, bytes]:
        facts = {"classes": getattr(estimator, "classes_", None)}
        return {GRAPH: estimator.data, FILE: dump_facts(facts, estimator.data)}

    def load(self, files: Mapping[str, Path]) -> Any:
        from noria.training.onnx_model import OnnxModel

        facts = load_facts(files[FILE], files[GRAPH], "classes")
        return OnnxModel(files[GRAPH].read_bytes(), facts["classes"])


def read_graph(file: Path) -> Any:
    """A file that somebody else has written, with the labels that its operators know.

    Raises:
        DataError: it isn't a graph of ONNX, or not one for the columns of a table.
        MissingExtraError: the package `onnx`, which reads the labels, isn't installed.
    """
    from noria.training.onnx_model import OnnxModel, labels_of

    data = file.read_bytes()
    return OnnxModel(data, labels_of(data))
