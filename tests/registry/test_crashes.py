"""Registrations that are killed at any instant: whole or not there, and nothing is left after collecting."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from databases import Server, postgresql

from noria.registry import ModelRegistry, collect
from noria.registry.collect import DAY
from noria.storage import open_records
from noria.testing import ManualClock

WORK = """
import sys, itertools
from pathlib import Path
from noria.registry import ModelRegistry
url, folder, turn = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
registry = ModelRegistry(url, folder / "blobs")
big = folder / "big"
print("ready", flush=True)
for number in itertools.count():
    run = f"{turn}-{number}"
    files = {"big": big, "own": run.encode() * 1000, "same": b"same"}
    made = registry.register("late", files, servable="x", run_id=run, metrics={"n": number})
    registry.promote("late", made.version, why=run)
    print(made.version, flush=True)
"""

LATER = ManualClock(2_000_000_000_000_000 + 2 * DAY)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    pytest.importorskip("psycopg")
    with postgresql() as server:
        yield server


def campaign(url: str, folder: Path, kills: int, seed: int) -> int:
    """Kill a process that registers so many times; returns how many versions there are in the end."""
    generator, told = random.Random(seed), 0
    (folder / "big").write_bytes(generator.randbytes(300_000))
    for turn in range(kills):
        with subprocess.Popen(
            [sys.executable, "-c", WORK, url, str(folder), str(turn)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            # Some get further than others, whatever the machine's pace; at least one registration is finished in all.
            said = [process.stdout.readline() for _ in range(generator.randrange(3) or turn == 0)]
            time.sleep(generator.random() * 0.15)
            process.kill()
            said += process.stdout.read().splitlines()
        assert process.returncode == -9
        told = max([told, *(int(line) for line in said if line)])
        with closing(open_records(url)) as records:
            check(ModelRegistry(records, folder / "blobs"), told)
    return told


def check(registry: ModelRegistry, told: int) -> None:
    """Everything that was said to be done is there, and whatever is there is whole."""
    if "late" not in registry.models():
        assert told == 0
        return
    versions = registry.versions("late")
    numbers = [version.version for version in versions]
    assert numbers == list(range(len(versions), 0, -1))
    assert len(versions) >= told
    assert len({version.run_id for version in versions}) == len(versions)
    for version in versions[:3]:
        assert registry.files(version)["own"].read_bytes() == version.run_id.encode() * 1000
        assert set(registry.files(version)) == {"big", "own", "same"}
    champions = registry.champions("late")
    assert champions == sorted(set(champions))
    assert not told or champions[-1] >= told
    registered = [entry.version for entry in registry.audit("late") if entry.action == "register"]
    assert sorted(registered, reverse=True) == numbers


def check_collected(url: str, folder: Path) -> None:
    with closing(open_records(url)) as records:
        registry = ModelRegistry(records, folder / "blobs")
        collect(registry, clock=LATER, empty=True)
        needed = registry.references()
        assert {one.digest for one in registry.blobs.stored()} == needed
        files = [file for file in (folder / "blobs").rglob("*") if file.is_file()]
        assert {file.parent.name + file.name for file in files} == needed
        for version in registry.versions("late"):
            registry.files(version)


def test_registrations_are_killed_at_random_instants(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/r.db"
    assert campaign(url, tmp_path, 6, 1) > 0
    check_collected(url, tmp_path)


def test_registrations_in_a_database_are_killed_at_random_instants(tmp_path: Path, server: Server) -> None:
    assert campaign(server.url, tmp_path, 4, 2) > 0
    check_collected(server.url, tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("backend", ["sqlite", "postgresql"])
def test_registrations_are_killed_for_a_long_time(backend: str, tmp_path: Path) -> None:
    if backend == "sqlite":
        url = f"sqlite:///{tmp_path}/r.db"
        versions = campaign(url, tmp_path, 200, 3)
        check_collected(url, tmp_path)
    else:
        with postgresql() as own:
            versions = campaign(own.url, tmp_path, 200, 4)
            check_collected(own.url, tmp_path)
    print(f"{backend}: 200 kills, {versions} versions")
