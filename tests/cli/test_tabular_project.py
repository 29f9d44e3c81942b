"""The tabular template on its real data: 336,776 flights."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

Noria = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory, noria: Noria) -> Path:
    folder = tmp_path_factory.mktemp("flights")
    noria("init", "flights", "--template", "tabular", cwd=folder)
    noria("run", cwd=folder / "flights")
    return folder / "flights"


def test_every_flight_is_accounted_for_and_the_model_beats_the_baseline(flights: Path, noria: Noria) -> None:
    assert len((flights / "system.py").read_text().splitlines()) <= 40
    parts = {part["name"]: part["run"] for part in json.loads(noria("run", "--json", cwd=flights).stdout)["components"]}
    assert parts["flights"]["rows"] == {"in": 336_776, "out": 336_776, "quarantined": 0, "filtered": 0}
    landings = parts["landings"]["rows"]
    assert landings["in"] == landings["out"] + landings["filtered"] == 336_776
    metrics = parts["late"]["notes"]["models"]["late"]
    assert set(metrics) == {"roc_auc", "accuracy", "f1"}
    assert metrics["roc_auc"] > 0.68
    assert "late@1" in noria("models", "list", cwd=flights).stdout


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_predictions_for_a_file(flights: Path, noria: Noria, tmp_path: Path, form: str) -> None:
    rows = pl.read_csv(flights / "data" / "flights.csv", n_rows=1500)
    file = tmp_path / f"rows.{form}"
    {"csv": rows.write_csv, "parquet": rows.write_parquet, "jsonl": rows.write_ndjson}[form](file)
    printed = pl.read_csv(noria("predict", str(file), cwd=flights).stdout.encode())
    assert len(printed) == 1500
    assert printed["prediction"].dtype == pl.Boolean
    assert printed["score"].is_between(0, 1).all()


def test_a_file_that_can_not_be_predicted_for_is_explained(flights: Path, noria: Noria, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("carrier,origin\nUA,EWR\n")
    assert "dest" in noria("predict", str(tmp_path / "a.csv"), cwd=flights, status=1).stderr
    (tmp_path / "b.csv").write_text("carrier,origin,dest,month,hour,distance\nUA,EWR,IAH,May,5,1400\n")
    assert "month is 'May'" in noria("predict", str(tmp_path / "b.csv"), cwd=flights, status=1).stderr
    assert "there is no file" in noria("predict", "nothing.csv", cwd=flights, status=1).stderr
