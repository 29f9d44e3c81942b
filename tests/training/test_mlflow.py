"""Versions to MLflow's directories and back; MLflow itself reads them in a soak test."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import polars as pl
import pytest
import yaml
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression

import noria as nr
from noria.core import ConfigError, DataError, NoriaError, Settings
from noria.registry import ModelRegistry, ModelVersion
from noria.serving import load_servable
from noria.storage import Workspace
from noria.training.mlflow_model import export_version, import_model
from noria.training.mlflow_model.mlmodel import DATA, VERSION

lgb = pytest.importorskip("lightgbm")
xgb = pytest.importorskip("xgboost")
cat = pytest.importorskip("catboost")

SCHEMA = {"amount": "float64?", "visits": "int64", "shop": "str?", "paid": "int64"}
ROWS = [
    {"amount": amount, "visits": visits, "shop": shop}
    for amount, visits, shop in ((9.5, 1, "s1"), (None, 4, "s4"), (15.0, 2, None), (7.0, 3, "new"))
]
MODELS = {
    "forest": RandomForestClassifier(n_estimators=5, random_state=0),
    "lightgbm": lgb.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1),
    "xgboost": xgb.XGBClassifier(n_estimators=5, n_jobs=1),
    "catboost": cat.CatBoostClassifier(iterations=5, verbose=False, allow_writing_files=False),
}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    random = np.random.default_rng(3)
    amount, shop, visits = random.normal(10, 3, 300), random.integers(0, 5, 300), random.integers(0, 9, 300)
    pl.DataFrame(
        {
            "amount": [None if i % 17 == 0 else float(a) for i, a in enumerate(amount)],
            "visits": visits,
            "shop": [f"s{s}" for s in shop],
            "paid": (amount + shop + visits > 16).astype(int),
        }
    ).write_csv(tmp_path / "sales.csv")
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def train(workspace: Workspace, model: Any, with_text: bool = True) -> ModelVersion:
    sales = nr.Source("sales", "sales.csv", schema=SCHEMA)
    part = nr.ModelTrainingPipeline(
        "paid",
        labels=sales,
        target="paid",
        features=["amount", "visits", "shop"] if with_text else ["amount", "visits"],
        steps=[nr.Impute(), nr.Encode()] if with_text else [],
        model=model,
        split=nr.RandomSplit(),
    )
    report = nr.System("shop", [sales, part]).run(workspace)
    assert not report.failed, report.failed[0].error
    return ModelRegistry.of(workspace).versions("paid")[0]


def answers(workspace: Workspace, version: ModelVersion, rows: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    servable = load_servable(version, workspace)
    request = servable.decode("predict", msgspec.json.encode({"instances": rows}))
    answer: Any = servable.answer("predict", [request])[0]
    return answer.predictions, answer.scores


@pytest.mark.parametrize("kind", MODELS)
def test_out_and_in_again_is_the_same(kind: str, workspace: Workspace, tmp_path: Path) -> None:
    version = train(workspace, MODELS[kind])
    folder = export_version(workspace, version, tmp_path / "out")
    made = import_model(workspace, folder, "again")
    assert made.label == "again@1"
    assert import_model(workspace, folder, "again").label == "again@1"
    assert made.signature.inputs == version.signature.inputs
    assert made.files == {name: blob for name, blob in version.files.items() if name.startswith("model.")}
    assert answers(workspace, made, ROWS) == answers(workspace, version, ROWS)
    with pytest.raises(ConfigError, match="there already"):
        export_version(workspace, version, folder)


def test_what_an_export_says(workspace: Workspace, tmp_path: Path) -> None:
    folder = export_version(workspace, train(workspace, MODELS["lightgbm"]), tmp_path / "out")
    said = yaml.safe_load((folder / "MLmodel").read_text())
    assert set(said["flavors"]) == {"python_function", "noria"}  # a native one would miss the steps
    assert json.loads(said["signature"]["inputs"])[0] == {"type": "double", "name": "amount", "required": False}
    assert [column["name"] for column in json.loads(said["signature"]["outputs"])] == ["prediction", "score"]
    required = (folder / "requirements.txt").read_text()
    assert "noria[lightgbm]==" in required
    assert "lightgbm==4" in required
    assert json.loads((folder / "input_example.json").read_text())["columns"] == ["amount", "visits", "shop"]


@pytest.mark.parametrize("kind", ["lightgbm", "xgboost", "catboost"])
def test_native_flavors_where_the_model_reads_its_columns(kind: str, workspace: Workspace, tmp_path: Path) -> None:
    version = train(workspace, MODELS[kind], with_text=False)
    folder = export_version(workspace, version, tmp_path / "out")
    said = yaml.safe_load((folder / "MLmodel").read_text())
    if kind == "catboost":  # its own file says codes of classes
        assert kind not in said["flavors"]
        return
    assert kind in said["flavors"]
    del said["flavors"]["noria"]  # as another tool would have written it
    (folder / "MLmodel").write_text(json.dumps(said))
    made = import_model(workspace, folder, "native")
    rows = [{"amount": row["amount"], "visits": row["visits"]} for row in ROWS]
    mine, scores = answers(workspace, version, rows)
    assert answers(workspace, made, rows) == ((scores, None) if kind == "lightgbm" else (mine, scores))


def sklearn_folder(folder: Path, data: bytes, form: str, inputs: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    (folder / "model.bin").write_bytes(data)
    flavor = {"pickled_model": "model.bin", "serialization_format": form}
    document = {"flavors": {"sklearn": flavor}, "signature": {"inputs": json.dumps(inputs)}}
    (folder / "MLmodel").write_text(yaml.safe_dump(document))
    return folder


def test_models_of_others_need_trust_numbers_and_sound_files(workspace: Workspace, tmp_path: Path) -> None:
    import skops.io

    rows = np.random.default_rng(0).normal(size=(50, 2))
    model = LogisticRegression().fit(rows, rows[:, 0] > 0)
    inputs = [{"type": "double", "name": "a"}, {"type": "float", "name": "b", "required": True}]
    good = sklearn_folder(tmp_path / "good", skops.io.dumps(model), "skops", inputs)
    version = import_model(workspace, good, "good")
    assert version.signature.inputs == {"a": "float64", "b": "float32"}
    assert answers(workspace, version, [{"a": 1.0, "b": 2.0}])[0] == model.predict([[1.0, 2.0]]).tolist()

    pickled = sklearn_folder(tmp_path / "pickled", pickle.dumps(model), "cloudpickle", inputs)
    with pytest.raises(ConfigError, match="is a pickle") as told:
        import_model(workspace, pickled, "no")
    assert "serialization_format='skops'" in told.value.hint
    text = sklearn_folder(tmp_path / "t", skops.io.dumps(model), "skops", [{"type": "string", "name": "a"}])
    with pytest.raises(DataError, match="models read numbers"):
        import_model(workspace, text, "no")
    short = sklearn_folder(
        tmp_path / "s", skops.io.dumps(LinearRegression().fit(rows, rows[:, 0])), "skops", inputs[:1]
    )
    with pytest.raises(DataError, match="can't predict for a matrix of 1 numbers"):
        import_model(workspace, short, "no")
    tensor = [{"type": "tensor", "tensor-spec": {"dtype": "float64", "shape": [-1, 2]}}]
    unnamed = sklearn_folder(tmp_path / "u", skops.io.dumps(model), "skops", tensor)
    assert import_model(workspace, unnamed, "unnamed").signature.inputs == {"f0": "float64", "f1": "float64"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": [{"step": "nope"}]}, "the saved step 'nope' is unknown"),
        ({"steps": ["nope"]}, "version.json can't be read"),
        ({"inputs": {"amount": "float65"}}, "unknown type 'float65'"),
        ({"inputs": {"visits": "int64"}, "steps": []}, "X has 1 features"),
        ({"model": 5}, "version.json can't be read"),
    ],
)
def test_an_export_that_could_not_answer_is_not_registered(
    change: dict[str, Any], said: str, workspace: Workspace, tmp_path: Path
) -> None:
    folder = export_version(workspace, train(workspace, LogisticRegression(), with_text=False), tmp_path / "out")
    file = folder / DATA / VERSION
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "spec": {**kept["spec"], **change}}))
    with pytest.raises(NoriaError, match=said):
        import_model(workspace, folder, "again")
    assert "again" not in ModelRegistry.of(workspace).models()


def test_an_export_takes_no_other_files_along(workspace: Workspace, tmp_path: Path) -> None:
    folder = export_version(workspace, train(workspace, LogisticRegression()), tmp_path / "out")
    (tmp_path / "secret").write_text("key")
    (folder / DATA / "model.more").symlink_to(tmp_path / "secret")
    with pytest.raises(DataError, match="not a file of the model"):
        import_model(workspace, folder, "again")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [", "not valid YAML"),
        ("a: 1", "no flavors"),
        ("flavors: {spacy: {}}", "noria reads none of them"),
        ("flavors: {sklearn: {pickled_model: ../../secret, serialization_format: skops}}", "not a file of the model"),
        ("flavors: {noria: {data: nowhere}}", "not a folder of the model"),
        ("flavors: {lightgbm: {data: .}}", "not a file of the model"),
        ("flavors: {lightgbm: {data: pipe}}", "not a file of the model"),
        ("flavors: {lightgbm: {data: circle}}", "not a file of the model"),
        (f"flavors: {{lightgbm: {{data: {'a' * 5000}}}}}", "not a file of the model"),
        ("flavors: {lightgbm: null}", "no flavors"),
        ("flavors: {lightgbm: {}}\nsignature: text", "a signature that is none"),
        ("flavors: {lightgbm: {data: 2020-13-45}}", "not valid YAML"),
        ("[" * 50_000, "not valid YAML"),
        (None, "is no model of MLflow"),
    ],
)
def test_folders_that_are_no_models(text: str | None, said: str, workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    os.mkfifo(tmp_path / "bad" / "pipe")
    (tmp_path / "bad" / "circle").symlink_to("circle")
    if text is not None:
        (tmp_path / "bad" / "MLmodel").write_text(text)
    with pytest.raises(DataError, match=said):
        import_model(workspace, tmp_path / "bad", "bad")
    assert ModelRegistry.of(workspace).models() == {}


@pytest.mark.soak
@pytest.mark.parametrize("kind", MODELS)
def test_mlflow_serves_it_and_predicts_the_same(kind: str, workspace: Workspace, tmp_path: Path) -> None:
    """With MLflow, noria and the model's library in an environment of their own, named by NORIA_MLFLOW_PYTHON."""
    python = os.environ.get("NORIA_MLFLOW_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("NORIA_MLFLOW_PYTHON names no Python with mlflow and noria")
    version = train(workspace, MODELS[kind])
    folder = export_version(workspace, version, tmp_path / "out")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "mlflow", "models", "serve", "-m", str(folder), "-p", str(port), "--env-manager", "local"]
    environ = {**os.environ, "PATH": f"{Path(python).parent}:{os.environ['PATH']}"}
    environ.pop("PYTHONPATH", None)
    with subprocess.Popen(command, cwd=tmp_path, env=environ, start_new_session=True) as server:
        try:
            end = time.monotonic() + 240
            while True:
                try:
                    answer = httpx.post(
                        f"http://127.0.0.1:{port}/invocations", json={"dataframe_records": ROWS}, timeout=60
                    )
                    break
                except httpx.TransportError:
                    assert time.monotonic() < end
                    assert server.poll() is None
                    time.sleep(1)
        finally:
            os.killpg(server.pid, 15)
    assert answer.status_code == 200, answer.text
    found = answer.json()["predictions"]
    predictions, scores = answers(workspace, version, ROWS)
    assert [row["prediction"] for row in found] == predictions
    assert [row["score"] for row in found] == scores


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["lightgbm", "xgboost", "catboost", "forest", "onnx"])
def test_a_model_that_mlflow_has_saved_is_imported(kind: str, workspace: Workspace, tmp_path: Path) -> None:
    python = os.environ.get("NORIA_MLFLOW_PYTHON", "")
    if not Path(python).is_file():
        pytest.skip("NORIA_MLFLOW_PYTHON names no Python with mlflow and noria")
    program = Path(__file__).with_name("saved_by_mlflow.py")
    subprocess.run([python, str(program), kind, str(tmp_path / "saved")], check=True, timeout=300)
    expected = json.loads((tmp_path / "saved" / "expected.json").read_text())
    (tmp_path / "saved" / "expected.json").unlink()
    version = import_model(workspace, tmp_path / "saved", "saved")
    rows = [{"a": row[0], "b": row[1]} for row in expected["rows"]]
    assert answers(workspace, version, rows)[0] == expected["predictions"]
