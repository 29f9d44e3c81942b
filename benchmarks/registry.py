"""The registry beside copying and hashing a file, and beside MLflow's tracking and registry."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from benchmarks.measure import markdown, measure, median
from benchmarks.serving.environments import peer
from noria.registry import Lineage, ModelRegistry, ModelVersion, Signature
from noria.storage import Put, open_records

PEERS = Path(__file__).parent / "peers"
VERSIONS, PEER_VERSIONS = 10_000, 1_000
BIG = 100_000_000
TURNS = 15
LOOKUPS = {
    "models()": "models",
    "newest 50 versions": "page",
    "show one version": "show",
    "look up the champion": "alias",
}


def run(scale: float = 1.0) -> str:
    """All sections; a `scale` below 1 makes everything smaller, for a quick look."""
    with tempfile.TemporaryDirectory(prefix="noria-bench-") as name:
        folder = Path(name)
        big = folder / "big"
        big.write_bytes(os.urandom(1_000_000) * int(BIG * scale / 1_000_000))
        mlflow, versions = _mlflow(folder, big, int(PEER_VERSIONS * scale))
        copied, made = _artifact(folder, big)
        found = {"SQLite": _numbers(f"sqlite:///{folder}/r.db", folder, int(VERSIONS * scale))}
        with _postgresql() as url:
            if url is not None:
                found["PostgreSQL"] = _numbers(url, folder, int(VERSIONS * scale))
        return "\n\n".join(
            [
                _lookups(found, mlflow, int(VERSIONS * scale), int(PEER_VERSIONS * scale)),
                _models(found, mlflow, versions),
                _big(copied, made, mlflow, big.stat().st_size),
            ]
        )


def _lookups(found: dict[str, dict[str, float]], mlflow: dict[str, float], versions: int, peers: int) -> str:
    rows = [
        (what, *(f"{one[key] * 1000:.2f}" for one in found.values()), _ms(mlflow, key)) for what, key in LOOKUPS.items()
    ]
    header = ("look-up", *(f"noria, {name}, ms" for name in found), "MLflow, SQLite, ms")
    note = f"Medians in a registry of {versions:,} versions of one model, each judged by three metrics in 50 slices; MLflow's has "
    note += f"{peers:,}, without slices. Bar: 5 ms in SQLite."
    return markdown("Registry: look-ups", header, rows, note)


def _models(found: dict[str, dict[str, float]], mlflow: dict[str, float], versions: str) -> str:
    rows = []
    for what, key in {"register": "register", "load": "load"}.items():
        own = [one[key] for one in found.values()]
        times = f"{mlflow[key] / own[0]:.0f}×" if mlflow else "-"
        rows.append((what, *(f"{seconds * 1000:.1f}" for seconds in own), _ms(mlflow, key), times))
    header = ("a logistic regression", *(f"noria, {name}, ms" for name in found), "MLflow, SQLite, ms", "noria faster")
    note = (
        f"Medians of {TURNS}: with its metrics and parameters, as a pickle; noria flushes file, folders and records to the "
        "disk, and verifies the checksum at each load. MLflow: `log_params`, `log_metrics`, `log_model` with a registered "
        f"name and given requirements, `load_model` ({versions}). Bar: 5 times as fast as MLflow."
    )
    return markdown("Registry: a small model", header, rows, note)


def _big(copied: float, made: dict[str, float], mlflow: dict[str, float], size: int) -> str:
    peers = mlflow["register_big"] + mlflow["load_big"] if mlflow else None
    own = made["register"] + made["load"]
    rows = [
        ("copy, flush and hash the file", f"{copied * 1000:.0f}", "1.00"),
        ("noria: register and load", f"{own * 1000:.0f}", f"{own / copied:.2f}"),
        ("… of this, load", f"{made['load'] * 1000:.0f}", f"{made['load'] / copied:.2f}"),
        ("MLflow: log, register and load", "-" if peers is None else f"{peers * 1000:.0f}",
         "-" if peers is None else f"{peers / copied:.2f}"),
    ]  # fmt: skip
    note = (
        f"A file of {size / 1e6:.0f} MB; medians of turns in which each comes once. noria reads it twice and hashes it "
        "twice: while the kernel writes it out, and before it gives it out. MLflow neither flushes nor hashes. Bar: 1.5 "
        "times copying and hashing."
    )
    return markdown("Registry: a large artifact", ("what", "ms", "ratio"), rows, note)


def _ms(found: dict[str, float], key: str) -> str:
    return f"{found[key] * 1000:.2f}" if found else "-"


def _seconds(work: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return median(found)


def _numbers(url: str, folder: Path, versions: int) -> dict[str, float]:
    """What noria takes with this records store."""
    with closing(open_records(url)) as records:
        registry = ModelRegistry(records, folder / f"blobs-{url.partition(':')[0]}")
        model = _fitted()
        runs = iter(range(10**9))

        def register() -> ModelVersion:
            return registry.register(
                "late", {"model.pkl": pickle.dumps((next(runs), model))}, servable="tabular", run_id=f"run {next(runs)}",
                metrics={"roc_auc": 0.7, "f1": 0.5}, parameters={"C": 1.0}, signature=_signature(), lineage=_lineage(),
            )  # fmt: skip

        first = register()
        found = {"register": _seconds(register, TURNS)}
        found["load"] = _seconds(
            lambda: pickle.loads(registry.files(registry.get("late@1"))["model.pkl"].read_bytes()), TURNS
        )
        _fill(registry, records, first, versions)
        found["models"] = _seconds(registry.models, 200)
        found["page"] = _seconds(lambda: registry.versions("many", limit=50), 200)
        found["show"] = _seconds(lambda: registry.get("many", versions // 2), 200)
        found["alias"] = _seconds(lambda: registry.get("many@champion"), 200)
        return found


def _fill(registry: ModelRegistry, records: Any, first: ModelVersion, versions: int) -> None:
    """As many versions as the registry itself would make, in fewer commits."""
    registry.register("many", {}, servable="tabular", run_id="1")
    trained = replace(first, name="many", parameters={"C": 1.0, "evaluation": _evaluation()})
    for start in range(2, versions + 1, 1000):
        numbers = range(start, min(start + 1000, versions + 1))
        documents = {n: replace(trained, version=n, run_id=str(n)).to_record() for n in numbers}
        records.commit(
            *(Put("versions", f"many@{n:08d}", document) for n, document in documents.items()),
            *(Put("registrations", f"many/{n}", {"version": n}) for n in numbers),
        )
    model = records.get("models", "many")
    records.commit(Put("models", "many", {**model.data, "latest": versions}))
    registry.promote("many", versions)


def _artifact(folder: Path, big: Path) -> tuple[float, dict[str, float]]:
    """Copying and hashing, and registering and loading, in turns: a slow minute of the machine is everybody's."""
    registry = ModelRegistry(f"sqlite:///{folder}/big.db", folder / "big-blobs")
    copied, registered, loaded = [], [], []
    for turn in range(7):
        with big.open("r+b") as file:
            file.write(turn.to_bytes(8, "little"))  # another content, so that it isn't there already
        began = time.perf_counter()
        _copy_and_hash(big, folder / "copy")
        copied.append(time.perf_counter() - began)
        (folder / "copy").unlink()
        began = time.perf_counter()
        made = registry.register("big", {"big": big}, servable="tabular", run_id=str(turn))
        middle = time.perf_counter()
        path = registry.files(made)["big"]
        loaded.append(time.perf_counter() - middle)
        registered.append(middle - began)
        path.unlink()
    return median(copied), {"register": median(registered), "load": median(loaded)}


def _copy_and_hash(source: Path, target: Path) -> str:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()


def _mlflow(folder: Path, big: Path, versions: int) -> tuple[dict[str, float], str]:
    """What MLflow takes; nothing where it can't be installed."""
    found = peer("mlflow")
    if found.python is None:
        return {}, found.versions()
    script = [found.python, str(PEERS / "registry_mlflow.py"), str(folder), str(big), str(TURNS), str(versions)]
    said: dict[str, float] = json.loads(measure(script).output.splitlines()[-1])
    return said, found.versions()


@contextmanager
def _postgresql() -> Iterator[str | None]:
    """A server of the tests', if there is one on this machine."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "pipelines"))
    try:
        from databases import postgresql
    finally:
        sys.path.pop(0)
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        yield None
        return
    with postgresql() as server:
        yield server.url


def _fitted() -> LogisticRegression:
    x = np.random.default_rng(0).normal(size=(1000, 20))
    return LogisticRegression().fit(x, x[:, 0] > 0)


def _signature() -> Signature:
    names = [f"x{n}" for n in range(20)]
    return Signature(dict.fromkeys(names, "float64"), {"late": "bool"}, dict.fromkeys(names, 0.5))


def _evaluation() -> dict[str, object]:
    """As much as a pipeline keeps of a judged model: three metrics with intervals, of all rows and of 50 slices."""
    random = np.random.default_rng(0)

    def judged() -> dict[str, object]:
        interval = dict(zip(("value", "low", "high"), random.random(3).tolist(), strict=True))
        return dict.fromkeys(("roc_auc", "accuracy", "f1"), interval)

    return {"metrics": judged(), "slices": {"month": {str(n): {"rows": n, **judged()} for n in range(50)}}}


def _lineage() -> Lineage:
    return Lineage({"flights": "3"}, {"carrier": "0123456789abcdef"}, {"git": "0" * 40, "python": "3.11"})
