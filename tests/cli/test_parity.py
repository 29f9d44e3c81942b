"""`noria parity` and `noria predictions` on what a real server has recorded."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import msgspec
import pytest

from noria.cli import main
from noria.core import Settings
from noria.features.catalog import Catalog
from noria.features.online import pack
from noria.serving import PredictionReader
from noria.storage import Workspace

Noria = Callable[..., subprocess.CompletedProcess[str]]

SYSTEM = """
from sklearn.linear_model import LogisticRegression

import noria as nr

orders = nr.Source("orders", "orders.csv", schema={
    "user": "int64", "shop": "str", "price": "float64", "late": "bool", "at": nr.Timestamp("iso"),
})
habits = nr.FeatureGroup("habits", entity="user", source=orders, features={
    "orders_2d": nr.count(window="2d"), "spent_2d": nr.sum("price", window="2d"), "mean": nr.mean("price"),
})
shop = nr.FeatureGroup("shop", entity="shop", source=orders, features={"sum": nr.sum("price"), "last": nr.latest("price")})
late = nr.ModelTrainingPipeline(
    "late", labels=orders, target="late", features=["price", habits, shop], steps=[nr.Impute(), nr.Normalize()],
    model=LogisticRegression(), split=nr.TimeSplit(test=0.3), metrics=["roc_auc"],
)
system = nr.System("shop", [orders, habits, shop, late])
"""
START = datetime(2026, 1, 1, tzinfo=UTC)


def rows(count: int, since: datetime, seed: int) -> str:
    numbers, lines = random.Random(seed), []
    for n in range(count):
        price = round(numbers.uniform(1, 100), 2)
        at = (since + timedelta(minutes=13 * n)).isoformat()
        lines.append(f"{n % 17},s{n % 3},{price},{str(price > 60).lower()},{at}\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def noria() -> Noria:
    """The command line in this process: there are many calls, and a process of its own for each takes seconds."""

    def call(*words: str, cwd: Path, status: int = 0, **environ: str) -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            mock.patch.dict(os.environ, environ),
        ):
            returned = main([*words, "--project", str(cwd)])
        assert returned == status, out.getvalue() + err.getvalue()
        return subprocess.CompletedProcess(words, returned, out.getvalue(), err.getvalue())

    return call


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, noria: Noria) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "system.py").write_text(SYSTEM)
    (folder / "orders.csv").write_text("user,shop,price,late,at\n" + rows(600, START, 1))
    noria("run", cwd=folder)
    return folder


@contextmanager
def serving(folder: Path, **environ: str) -> Iterator[httpx.Client]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "noria.serving", "--project", str(folder), "--port", str(port), "--features", "late"]
    environ = {**os.environ, "NORIA_PREDICTIONS_LOG_SHARE": "1", **environ}
    with subprocess.Popen(words, env=environ) as process, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        try:
            deadline = time.monotonic() + 30
            while not ready(client):
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield client
        finally:
            process.terminate()
    assert process.returncode == 0


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.ConnectError:
        return False


def ask(client: httpx.Client, count: int, name: str) -> None:
    for n in range(count):
        entities = [{"user": (n + i) % 19, "shop": f"s{n % 4}", "price": 10.0 + n} for i in range(1 + n % 3)]
        answer = client.post("/predict", json={"entities": entities}, headers={"x-request-id": f"{name}-{n}"})
        assert answer.status_code == 200, answer.text
    body = {"groups": ["shop"], "entities": {"shop": ["s0", "nobody's"]}}
    assert client.post("/features", json=body, headers={"x-request-id": f"{name}-features"}).status_code == 200


def counts(noria: Noria, project: Path, *words: str, status: int = 0) -> dict[str, int]:
    found = json.loads(noria("parity", "--json", *words, cwd=project, status=status).stdout)
    outcomes = ("equal", "late", "different", "unknown")
    return {name: n for name in outcomes if (n := sum(one[name] for one in found["features"]))}


def test_what_a_server_reads_is_what_a_training_set_has(project: Path, noria: Noria) -> None:
    assert "noria serve" in noria("parity", cwd=project, status=1).stderr
    off = noria("parity", cwd=project, status=1, NORIA_PREDICTIONS_LOG_SHARE="0").stderr
    assert "switched off: set log_share" in off

    with serving(project) as client:
        answer = client.post("/predict", json={"instances": [{"price": 3.0}]})
        assert answer.status_code == 200, answer.text
    assert "none of them read features" in noria("parity", cwd=project, status=1).stderr

    with serving(project) as client:
        ask(client, 60, "first")
    values = 120 * 3 + 120 * 2 + 2 * 2
    assert counts(noria, project) == {"equal": values}
    printed = noria("parity", cwd=project).stdout
    assert re.search(r"habits\.spent_2d +120 +0 +0", printed)
    assert f"no value is different: {values} are equal" in printed
    assert counts(noria, project, "--model", "late@1") == {"equal": values - 4}
    assert counts(noria, project, "--limit", "10", "--since", "1h")["equal"] < values

    # Late orders of some: what was read before was right then. What is read afterwards is right again.
    newest = START + timedelta(minutes=13 * 599)
    with (project / "orders.csv").open("a") as file:
        file.write(rows(9, newest - timedelta(hours=20), 2))
    noria("run", cwd=project)
    found = counts(noria, project)
    assert set(found) == {"equal", "late"}
    assert found["late"] > 100
    with serving(project) as client:
        ask(client, 20, "second")
    again = counts(noria, project)
    assert again["late"] == found["late"]
    assert again["equal"] > found["equal"] + 150
    assert "late: " in noria("parity", cwd=project).stdout

    tamper(project)
    with serving(project) as client:
        ask(client, 4, "third")
    assert counts(noria, project, status=1)["different"] == 2 * 2 + 2  # of shop s1 twice two features, and of user 3
    printed = noria("parity", cwd=project, status=1).stdout
    assert "6 values are different, and nothing explains it" in printed
    assert re.search(r"shop\.last of 's1' as of 2026-\S+: online -1\.0, offline \d+", printed)
    assert "see `noria predictions show third-1`" in printed


def tamper(project: Path) -> None:
    with Workspace.open(Settings(project)) as workspace:
        spec = Catalog(workspace.records, workspace.clock).get("shop").spec
        (there,) = workspace.online.read(spec.place, [spec.key("s1")])
        assert there is not None
        time, total, _ = msgspec.msgpack.decode(there.value)
        workspace.online.write(spec.place, [spec.key("s1")], [there.time], [pack(time, [total + 1e-4, -1.0])])
        spec = Catalog(workspace.records, workspace.clock).get("habits").spec
        (there,) = workspace.online.read(spec.place, [spec.key(3)])
        assert there is not None
        time, *values = msgspec.msgpack.decode(there.value)
        workspace.online.write(spec.place, [spec.key(3)], [there.time], [pack(time, [values[0] + 1, *values[1:]])])


def test_a_prediction_is_traced_to_its_model_and_features(project: Path, noria: Noria) -> None:
    with serving(project) as client:
        ask(client, 3, "traced")
    listed = noria("predictions", "list", "--limit", "4", cwd=project).stdout
    assert "traced-2" in listed
    assert re.search(r"late@\d", listed)
    assert "habits 2 and 2 more" in listed
    shown = noria("predictions", "show", "traced-1", cwd=project).stdout
    assert re.search(r"trained on orders version \d", shown)
    assert "habits@1, values as of 2026-01-06T" in shown
    assert re.search(r"habits\.orders_2d +\d+ +present +2026-01-0", shown)
    plain: list[dict[str, Any]] = json.loads(noria("predictions", "show", "traced-1", "--json", cwd=project).stdout)
    assert plain[0]["groups"][1]["version"] == "shop@1"
    assert plain[0]["groups"][0]["ids"] == [1, 2]
    assert plain[0]["registered"]["metrics"]["roc_auc"] > 0.5
    assert plain[0]["output"]["predictions"]
    assert "no prediction 'x' is recorded" in noria("predictions", "show", "x", cwd=project, status=1).stderr
    assert "is no time" in noria("predictions", "list", "--since", "soon", cwd=project, status=1).stderr
    unknown = noria("predictions", "list", "--model", "lat", cwd=project, status=1).stderr
    assert "there is no model 'lat'" in unknown
    assert "did you mean 'late'" in unknown
    assert "has no version 99" in noria("predictions", "list", "--model", "late@99", cwd=project, status=1).stderr
    assert "there is no model 'nobody'" in noria("parity", "--model", "nobody", cwd=project, status=1).stderr


def test_several_servers_write_and_a_torn_line_is_told(project: Path, noria: Noria) -> None:
    folder = project / ".noria" / "predictions"
    before = len(list(folder.iterdir()))
    with serving(project) as one, serving(project) as other:
        ask(one, 2, "one")
        ask(other, 2, "other")
    files = sorted(folder.iterdir())
    assert len(files) == before + 2
    files[-1].write_bytes(files[-1].read_bytes()[:-9])
    done = noria("predictions", "list", "--limit", "9", cwd=project)
    assert "1 lines of the prediction log are torn" in done.stderr
    assert {p.id for p in PredictionReader(folder)} >= {"one-0", "one-1", "other-0", "other-1"}
