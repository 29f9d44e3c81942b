"""Graphs of ONNX as versions: what is read, what it predicts, and what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from noria.cli import main
from noria.core import ConfigError, DataError, NoriaError, Settings
from noria.registry import ModelRegistry, ModelVersion
from noria.serving import load_servable
from noria.storage import Workspace
from noria.training.foreign import import_onnx
from noria.training.onnx_model import OnnxModel, labels_of

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
skl2onnx = pytest.importorskip("skl2onnx")

FLOAT, DOUBLE, INT, TEXT = 1, 11, 7, 8


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows() -> Any:
    return np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)


def graph(
    inputs: dict[str, tuple[int, list[Any]]], nodes: list[Any], outputs: dict[str, tuple[int, list[Any]]]
) -> bytes:
    info = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        nodes,
        "made",
        [info(name, *kind) for name, kind in inputs.items()],
        [info(name, *kind) for name, kind in outputs.items()],
    )
    whole = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    return bytes(whole.SerializeToString())


def answers(workspace: Workspace, version: ModelVersion, rows: Any) -> tuple[list[Any], list[Any]]:
    servable = load_servable(version, workspace)
    body = msgspec.json.encode({"instances": [{f"f{n}": float(v) for n, v in enumerate(row)} for row in rows]})
    answer: Any = servable.answer("predict", [servable.decode("predict", body)])[0]
    return answer.predictions, answer.scores


def words(values: Any) -> Any:
    return np.where(values[:, 0] > 0, "late", "early")


def numbers(values: Any) -> Any:
    return np.where(values[:, 0] > 0, 7, 3)


def three(values: Any) -> Any:
    return np.digitize(values[:, 0], [-0.5, 0.5]) + 10


@pytest.mark.parametrize("zipmap", [True, False])
@pytest.mark.parametrize("target", [words, numbers, three])
@pytest.mark.parametrize("kind", [LogisticRegression, RandomForestClassifier])
def test_a_classifier_of_scikit_learn_answers_as_there(
    kind: Any, target: Callable[[Any], Any], zipmap: bool, rows: Any, workspace: Workspace, tmp_path: Path
) -> None:
    model = kind().set_params(random_state=0).fit(rows, target(rows))
    file = tmp_path / "their.onnx"
    file.write_bytes(skl2onnx.to_onnx(model, rows[:1], options={id(model): {"zipmap": zipmap}}).SerializeToString())
    version = import_onnx(workspace, file, "their")
    assert version.spec["model"]["format"] == "onnx"
    assert import_onnx(workspace, file, "their").label == version.label

    predictions, scores = answers(workspace, version, rows[:20])
    assert predictions == model.predict(rows[:20]).tolist()
    if target is not three:
        assert np.allclose(scores, model.predict_proba(rows[:20])[:, 1], atol=1e-5)
    else:
        made = OnnxModel(file.read_bytes(), labels_of(file.read_bytes()))
        assert np.allclose(made.predict_proba(rows[:20]), model.predict_proba(rows[:20]), atol=1e-5)


def test_a_regressor_of_scikit_learn_answers_as_there(rows: Any, workspace: Workspace, tmp_path: Path) -> None:
    model = GradientBoostingRegressor(n_estimators=5).fit(rows, rows[:, 0] * 2)
    file = tmp_path / "their.onnx"
    file.write_bytes(skl2onnx.to_onnx(model, rows[:1]).SerializeToString())
    version = import_onnx(workspace, file, "their")
    assert np.allclose(answers(workspace, version, rows[:20])[0], model.predict(rows[:20]), atol=1e-5)
    assert version.signature.outputs == {"prediction": "float64"}


def test_an_import_that_no_server_answers_with_says_so(
    rows: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = LogisticRegression().fit(rows, numbers(rows))
    (tmp_path / "their.onnx").write_bytes(skl2onnx.to_onnx(model, rows[:1]).SerializeToString())
    (tmp_path / "system.py").write_text(
        'import noria as nr\nsystem = nr.System("s", [nr.Source("rows", "rows.csv", schema={"x": "int64"})])\n'
    )
    assert main(["models", "import", str(tmp_path / "their.onnx"), "their", "--project", str(tmp_path)]) == 0
    assert "servers answer with the models of system.py, and it has no their" in capsys.readouterr().out
    (tmp_path / "system.py").unlink()
    assert main(["models", "import", str(tmp_path / "their.onnx"), "their", "--project", str(tmp_path)]) == 0
    assert "system.py" not in capsys.readouterr().out


def test_columns_that_are_inputs_of_their_own(workspace: Workspace, tmp_path: Path) -> None:
    nodes = [
        onnx.helper.make_node("Cast", ["visits"], ["whole"], to=DOUBLE),
        onnx.helper.make_node("Squeeze", ["amount"], ["flat"]),
        onnx.helper.make_node("Add", ["flat", "whole"], ["sum"]),
    ]
    data = graph({"amount": (DOUBLE, ["n", 1]), "visits": (INT, ["n"])}, nodes, {"sum": (DOUBLE, ["n"])})
    file = tmp_path / "sum.onnx"
    file.write_bytes(data)
    version = import_onnx(workspace, file, "sum")
    assert list(version.spec["inputs"]) == ["amount", "visits"]
    model = OnnxModel(data)
    assert model.predict(np.array([[0.5, 2.0], [1.25, 40.0]])).tolist() == [2.5, 41.25]
    with pytest.raises(DataError, match="whole numbers from visits, and one is missing"):
        model.predict(np.array([[0.5, np.nan]]))
    with pytest.raises(DataError, match="reads 2 columns"):
        model.predict(np.zeros((1, 3)))


def test_it_can_be_copied_and_sent_and_not_trained(rows: Any) -> None:
    data = skl2onnx.to_onnx(LogisticRegression().fit(rows, numbers(rows)), rows[:1]).SerializeToString()
    model = OnnxModel(data, labels_of(data))
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert other.predict(rows).tolist() == model.predict(rows).tolist()
        assert other.predict_proba(rows).tolist() == model.predict_proba(rows).tolist()
    with pytest.raises(ConfigError, match="can't be trained"):
        model.fit(rows, rows[:, 0])


NEGATE = [onnx.helper.make_node("Neg", ["X"], ["Y"])]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "can't read the model|is not a graph"),
        (b"not a graph", "is not a graph of ONNX"),
        (graph({"X": (FLOAT, ["n", 3])}, NEGATE, {"Y": (FLOAT, ["n", 3])}), "one number a row"),
        (graph({"X": (FLOAT, [8, 1])}, NEGATE, {"Y": (FLOAT, [8, 1])}), "takes 8 rows and no other number"),
        (graph({"X": (FLOAT, ["n", 3, 4])}, NEGATE, {"Y": (FLOAT, ["n", 3, 4])}), "not the columns of a table"),
        (
            graph(
                {"X": (TEXT, ["n", 1])},
                [onnx.helper.make_node("Identity", ["X"], ["Y"])],
                {"Y": (TEXT, ["n", 1])},
            ),
            "is a tensor\\(string\\), and noria's imported models read numbers",
        ),
        (
            graph({"X": (FLOAT, ["n", 1])}, [onnx.helper.make_node("Unknown", ["X"], ["Y"])], {"Y": (FLOAT, ["n", 1])}),
            "can't read the model: .*Unknown",
        ),
    ],
    ids=["empty", "text", "vectors", "fixed rows", "cube", "strings", "unknown operator"],
)
def test_what_is_no_model_of_a_table_is_refused(data: bytes, said: str, workspace: Workspace, tmp_path: Path) -> None:
    file = tmp_path / "their.onnx"
    file.write_bytes(data)
    with pytest.raises(DataError, match=said):
        import_onnx(workspace, file, "their")
    assert ModelRegistry.of(workspace).models() == {}


def test_weights_in_another_file_are_not_read(workspace: Workspace, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    np.ones(3, np.float32).tofile("secret.bin")
    weights = onnx.TensorProto(name="W", data_type=FLOAT, dims=[3, 1], data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", "secret.bin"), ("offset", "0"), ("length", "12")):
        weights.external_data.add(key=key, value=value)
    info = onnx.helper.make_tensor_value_info
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["X", "W"], ["Y"])],
        "made",
        [info("X", FLOAT, ["n", 3])],
        [info("Y", FLOAT, ["n", 1])],
        [weights],
    )
    whole = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    Path("their.onnx").write_bytes(whole.SerializeToString())
    with pytest.raises(DataError, match="can't read the model"):
        import_onnx(workspace, Path("their.onnx"), "their")


def test_every_cut_of_a_file_is_an_error_and_not_a_crash(rows: Any, workspace: Workspace, tmp_path: Path) -> None:
    forest = RandomForestClassifier(3, random_state=0).fit(rows, numbers(rows))
    model = skl2onnx.to_onnx(forest, rows[:1])
    model.opset_import.sort(key=lambda one: one.domain, reverse=True)  # else by chance; the last ones are read without
    whole = model.SerializeToString()
    file = tmp_path / "cut.onnx"
    for size in (*range(0, len(whole) - 30, len(whole) // 60), *range(len(whole) - 30, len(whole))):
        file.write_bytes(whole[:size])
        with pytest.raises(NoriaError):
            import_onnx(workspace, file, "cut")


def refused(workspace: Workspace, tmp_path: Path, data: bytes) -> str:
    file = tmp_path / "made.onnx"
    file.write_bytes(data)
    with pytest.raises(NoriaError) as caught:
        import_onnx(workspace, file, "late")
    assert ModelRegistry.of(workspace).models() == {}
    return str(caught.value)


def test_what_could_not_answer_is_not_registered(workspace: Workspace, tmp_path: Path, rows: Any) -> None:
    node = onnx.helper.make_node
    mean = graph({"x": (FLOAT, ["n", 1])}, [node("ReduceMean", ["x"], ["y"], keepdims=1)], {"y": (FLOAT, [1, 1])})
    assert "answers with an array [1, 1] for 2 rows" in refused(workspace, tmp_path, mean)
    name = graph(
        {"a": (FLOAT, ["n", 1]), 'b"': (FLOAT, ["n", 1])}, [node("Add", ["a", 'b"'], ["y"])], {"y": (FLOAT, ["n", 1])}
    )
    assert "an input can't be named 'b\"'" in refused(workspace, tmp_path, name)
    wide = graph({"x": (FLOAT, ["n", 10**9])}, [node("ReduceSum", ["x"], ["y"])], {"y": (FLOAT, ["n", 1])})
    assert "which are not the columns of a table" in refused(workspace, tmp_path, wide)
    model, few = LogisticRegression().fit(rows, rows[:, 0] > 0), rows[:1]
    raw = skl2onnx.to_onnx(model, few, options={"raw_scores": True, "zipmap": False})
    assert "are probabilities" in refused(workspace, tmp_path, raw.SerializeToString())
    columns = skl2onnx.to_onnx(model, few, options={"zipmap": "columns"})
    assert "for 2 rows, not with 2 for each" in refused(workspace, tmp_path, columns.SerializeToString())


def test_numbers_outside_of_an_input_are_refused() -> None:
    node = onnx.helper.make_node
    for kind, most in ((INT, 2.0**63), (6, 2.0**31)):
        made = OnnxModel(
            graph({"x": (kind, ["n", 1])}, [node("Cast", ["x"], ["y"], to=DOUBLE)], {"y": (DOUBLE, ["n", 1])})
        )
        for wrong in (most, np.inf, -np.inf, 1e300):
            with pytest.raises(DataError, match="is none"):
                made.predict([[1.0], [wrong]])
        assert made.predict([[-most], [most - 2**10]]).tolist() == [-most, most - 2**10]
