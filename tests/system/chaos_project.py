"""The project of a campaign: models of every sort, a Redis, a gateway, and the load's requests."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import chaos_servables
from chaos_load import Kind
from real_servers import free_port, redis_program, wait_for

from noria.core import Settings
from noria.registry import ModelRegistry, ModelVersion
from noria.serving.exposures import FOLDER
from noria.storage import Workspace

SYSTEM = """\
from sklearn.linear_model import LogisticRegression

import noria as nr

clicks = nr.Stream("clicks", {"user": "str", "n": "int64"})
trips = nr.Source("trips", "trips.csv", time="at", schema={
    "driver": "str", "hour": "int64", "distance": "float64", "delay": "float64", "at": nr.Timestamp("s")})
ratings = nr.Source("ratings", "ratings.csv", schema={
    "user_id": "int64", "item_id": "int64", "rating": "float32", "timestamp": nr.Timestamp("s")})
movies = nr.Source("movies", "movies.csv", key="item_id", schema={"item_id": "int64", "title": "str"})
driver = nr.FeatureGroup("driver", entity="driver", source=trips, features={
    "delays": nr.mean("delay", window="30d"), "trips": nr.count(window="30d")})


def late(name, *features):
    return nr.ModelTrainingPipeline(
        name, labels=trips, target=nr.col("delay") > 10, features=["hour", "distance", *features],
        steps=[nr.Impute(), nr.Normalize()], model=LogisticRegression(), split=nr.TimeSplit(test=0.2),
        metrics=["accuracy"])


recommender = nr.RecommenderSystem(
    "recommender", events=ratings, items=movies, positive=nr.col("rating") >= 4, retrieve=[nr.ItemKNN(), nr.Popular()])
system = nr.System("chaos", [clicks, trips, ratings, movies, driver, late("plain"), late("slow"),
                             late("lmdb", driver), late("redis", driver), recommender])
"""
FULL_BYTES = 16 << 20
_DRIVERS = 50


def _rows(random: random.Random) -> dict[str, str]:
    trips = ["driver,hour,distance,delay,at"]
    for n in range(4000):
        hour, distance = random.randrange(24), round(random.uniform(1, 40), 2)
        delay = round(hour / 2 + distance / 5 + random.gauss(-4, 4), 2)
        trips.append(f"d{random.randrange(_DRIVERS)},{hour},{distance},{delay},{1_700_000_000 + 600 * n}")
    ratings = ["user_id,item_id,rating,timestamp"]
    for user in range(200):
        for item in random.sample(range(100), 20):
            ratings.append(f"{user},{item},{random.choice((2, 3, 4, 5, 5))},{1_700_000_000 + 100 * user + item}")
    movies = ["item_id,title", *(f"{item},film {item}" for item in range(100))]
    return {"trips.csv": "\n".join(trips), "ratings.csv": "\n".join(ratings), "movies.csv": "\n".join(movies)}


def kinds(scale: float = 1.0) -> list[Kind]:
    """The sorts of clients."""
    rng = random.Random(7)

    def row(**more: str) -> dict[str, object]:
        return {"hour": rng.randrange(24), "distance": round(rng.uniform(1, 40), 2), **more}

    def instances(number: int) -> str:
        return json.dumps({"instances": [row()]})

    def entities(number: int) -> str:
        return json.dumps({"entities": [row(driver=f"d{rng.randrange(_DRIVERS)}")]})

    def features(number: int) -> str:
        return json.dumps({"groups": ["driver"], "entities": {"driver": [f"d{rng.randrange(_DRIVERS)}"]}})

    def events(number: int) -> str:
        # As many producers as can't all wait for an answer: the sequence of each grows.
        event, producer = {"user": "u", "n": number}, f"app-{number % 400}"
        return json.dumps({"events": [event], "producer": producer, "sequence": number // 400})

    return [
        Kind("plain", "/models/plain/predict", 40 * scale, instances),
        Kind("recommender", "/recommend", 15 * scale, lambda _: json.dumps({"user_id": rng.randrange(220), "k": 5})),
        Kind("lmdb", "/models/lmdb/predict", 15 * scale, entities),
        Kind("redis", "/models/redis/predict", 15 * scale, entities),
        Kind("features", "/features", 5 * scale, features),
        Kind("events", "/events", 5 * scale, events, resends=True),
        Kind("slow", "/models/slow/predict", 2 * scale, instances),
    ]


class Redis:
    """A real server that keeps its data, to be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        folder.mkdir()
        self._command = [redis_program(), "--port", str(self.port), "--dir", str(folder), "--save", ""]
        self._command += ["--appendonly", "yes", "--requirepass", "secret"]
        self.url = f"redis://:secret@127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.port, self.process)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.wait(20)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


def make(folder: Path, redis_url: str) -> None:
    """Write and run the project: online values in LMDB first, then in Redis; and register the odd versions."""
    folder.mkdir()
    (folder / "system.py").write_text(SYSTEM)
    for name, text in _rows(random.Random(3)).items():
        (folder / name).write_text(text)
    noria(folder, "run")
    (folder / "noria.toml").write_text(f'[storage]\nonline = "{redis_url}"\n')
    noria(folder, "run")
    with Workspace.open(Settings.load(folder)) as workspace:
        registry = ModelRegistry.of(workspace)
        for model, servable in (
            ("plain", "tabular"),
            ("plain", "chaos_crash"),
            ("plain", "chaos_unloadable"),
            ("lmdb", "chaos_lmdb"),
            ("slow", "chaos_slow"),
        ):
            made = _copy(registry, registry.get(model), servable)
            if model != "plain":
                registry.promote(model, made.version)


def _copy(registry: ModelRegistry, version: ModelVersion, servable: str) -> ModelVersion:
    files = {name: file.read_bytes() for name, file in registry.files(version).items()}
    return registry.register(
        version.name, files, servable=servable, run_id=servable, spec=version.spec, metrics=version.metrics,
        signature=version.signature, lineage=replace(version.lineage),
    )  # fmt: skip


def noria(folder: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "noria", *words], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def plugin(folder: Path) -> Iterator[None]:
    """Let all processes find the odd servables, as an installed package would."""
    information = folder / "chaos_servables-1.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: chaos-servables\nVersion: 1\n")
    (information / "entry_points.txt").write_text(chaos_servables.ENTRY_POINTS)
    shutil.copy(chaos_servables.__file__, folder)
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), before)))
    try:
        yield
    finally:
        os.environ.pop("PYTHONPATH")
        if before is not None:
            os.environ["PYTHONPATH"] = before


@contextmanager
def small_disks(folder: Path) -> Iterator[list[Path]]:
    """Disks of 16 MB for all logs, where we may mount; gives those that could be."""
    folders = [folder / ".noria" / name for name in ("logs", "predictions", FOLDER, "serve/logs")]
    mounted: list[Path] = []
    for each in folders:
        each.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={FULL_BYTES}", "tmpfs", str(each)]
        if os.geteuid() == 0 and shutil.which("mount") and not subprocess.run(command, capture_output=True).returncode:
            mounted.append(each)
    try:
        yield mounted
    finally:
        for each in mounted:
            subprocess.run(["umount", "-l", str(each)], check=False)


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[tuple[int, int]]:
    """`noria serve`, without root's right to write where it may not; gives its port and process id."""
    command = [sys.executable, "-m", "noria", "serve", "--port", "0", "--replicas", "2"]
    if os.geteuid() == 0 and shutil.which("setpriv"):
        command = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--", *command]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=errors)
    assert process.stdout is not None
    try:
        found = re.search(rb"http://\S+:(\d+)", process.stdout.readline())
        assert found, log.read_text()
        yield int(found[1]), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if process.poll() is None:
            process.kill()
        process.stdout.close()
        process.wait()
