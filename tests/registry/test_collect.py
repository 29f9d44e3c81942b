"""What no version refers to is removed, and nothing else; what is damaged is told."""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from real_servers import s3_server

from noria.core import ConflictError, IntegrityError, NotFoundError, StorageError
from noria.registry import Collected, ModelRegistry, collect
from noria.registry.collect import DAY
from noria.storage import Blob, BlobStore, FileBlobs, Put, open_blobs, open_records
from noria.testing import ManualClock

LATER = ManualClock(2_000_000_000_000_000 + 2 * DAY)
"""In 2033: everything is old."""


@pytest.fixture(scope="module")
def s3_variables() -> Iterator[dict[str, str]]:
    pytest.importorskip("obstore")
    with s3_server() as variables:
        yield variables


@pytest.fixture(params=["file", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BlobStore:
    if request.param == "file":
        return FileBlobs(tmp_path / "blobs")
    for name, value in request.getfixturevalue("s3_variables").items():
        monkeypatch.setenv(name, value)
    return open_blobs(f"s3://data/{abs(hash(request.node.nodeid)):x}", tmp_path)


@pytest.fixture
def registry(blobs: BlobStore, tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(open_records(f"sqlite:///{tmp_path}/r.db"), blobs)


def register(registry: ModelRegistry, run: str, **files: bytes | Path) -> int:
    return registry.register("late", files, servable="x", run_id=run).version


def test_orphans_go_and_shared_files_stay(registry: ModelRegistry, blobs: BlobStore) -> None:
    register(registry, "a", model=b"weights", same=b"shared")
    register(registry, "b", model=b"others", same=b"shared")
    orphan = blobs.write(b"of a killed run")
    assert collect(registry) == Collected(False, kept=3, kept_bytes=19, young=1, young_bytes=15)
    wanted = Collected(True, kept=3, kept_bytes=19, orphans=1, orphan_bytes=15)
    assert collect(registry, dry_run=True, clock=LATER) == wanted
    assert blobs.read(orphan.digest) == b"of a killed run"
    assert collect(registry, clock=LATER) == Collected(False, *list(vars(wanted).values())[1:])
    assert collect(registry, clock=LATER) == Collected(False, kept=3, kept_bytes=19)
    for number in (1, 2):
        assert registry.files(registry.get("late", number))["same"].read_bytes() == b"shared"


def test_what_is_written_again_is_new(registry: ModelRegistry, blobs: BlobStore, tmp_path: Path) -> None:
    register(registry, "a", model=b"weights")
    blob = blobs.write(b"orphan")
    if isinstance(blobs, FileBlobs):
        os.utime(blobs.path(blob.digest), (1, 1))  # its ctime is new all the same
    found = collect(registry, older_than=DAY)
    assert (found.young, found.orphans) == (1, 0)
    (listed,) = [one for one in blobs.stored() if one.digest == blob.digest]
    register(registry, "b", model=b"orphan")
    assert not blobs.remove(listed) or not isinstance(blobs, FileBlobs)


def test_a_clock_that_jumps_ahead_takes_nothing_from_a_registration(tmp_path: Path) -> None:
    """It is collected while it goes on, and its first file looks two days old."""
    clock = ManualClock(time.time_ns() // 1_000)
    blobs = FileBlobs(tmp_path / "blobs")
    registry = ModelRegistry(open_records(f"sqlite:///{tmp_path}/r.db"), blobs, clock=clock)
    register(registry, "a", model=b"weights")
    written: list[int] = []

    class Jumping:
        """Blobs during whose second file the clock jumps."""

        def write(self, data: bytes | Path) -> Blob:
            blob = blobs.write(data)
            written.append(blob.size)
            if len(written) == 2:
                clock.advance(2 * DAY)
                assert collect(registry, clock=clock).orphans == 2
            return blob

    during = ModelRegistry(registry._records, cast(BlobStore, Jumping()), clock=clock)
    register(during, "b", first=b"first", second=b"second")
    assert {file.read_bytes() for file in registry.files(registry.get("late@2")).values()} == {b"first", b"second"}
    assert collect(registry, clock=clock).orphans == 0


def test_what_is_newer_stays_where_the_clock_was_put_back(tmp_path: Path) -> None:
    """It was listed when the clock was ahead, and is written again now."""
    blobs = FileBlobs(tmp_path / "blobs")
    blob = blobs.write(b"orphan")
    (listed,) = blobs.stored()
    assert not blobs.remove(replace(listed, written=listed.written + 365 * DAY))
    assert blobs.read(blob.digest) == b"orphan"
    assert blobs.remove(listed)


def test_a_registry_without_versions_is_more_likely_the_wrong_one(registry: ModelRegistry, blobs: BlobStore) -> None:
    assert collect(registry, clock=LATER) == Collected(False)
    blob = blobs.write(b"all that there is")
    with pytest.raises(ConflictError, match="is it the right registry"):
        collect(registry, clock=LATER)
    assert blobs.read(blob.digest) == b"all that there is"
    assert collect(registry, clock=LATER, empty=True).orphans == 1


def test_a_damaged_record_stops_it(registry: ModelRegistry, blobs: BlobStore) -> None:
    register(registry, "a", model=b"weights")
    blob = blobs.write(b"orphan")
    record = registry._records.get("versions", "late@00000001")
    assert record is not None
    registry._records.commit(Put("versions", "late@00000001", {**record.data, "files": "?"}))
    with pytest.raises(IntegrityError, match="late@00000001 is damaged"):
        collect(registry, clock=LATER)
    assert blobs.read(blob.digest) == b"orphan"


def test_files_of_a_version_whose_record_is_gone_or_changed_stay(registry: ModelRegistry, blobs: BlobStore) -> None:
    """Nobody can tell which files it has; an alias may point at it."""
    register(registry, "a", model=b"weights")
    register(registry, "b", model=b"others")
    registry.promote("late", 1)
    record = registry._records.get("versions", "late@00000001")
    assert record is not None
    files = {"model": {"digest": "0" * 64, "size": 7}}
    registry._records.commit(Put("versions", record.key, {**record.data, "files": files}))
    with pytest.raises(IntegrityError, match="late@00000001 is damaged"):
        collect(registry, clock=LATER)
    registry._records.commit(Put("versions", record.key, record.data))
    with sqlite3.connect(registry._records._path) as file:  # type: ignore[attr-defined]
        file.execute("DELETE FROM records WHERE collection = 'versions' AND key = 'late@00000001'")
    file.close()
    for empty in (False, True):
        with pytest.raises(IntegrityError, match="the record of version late@1 is gone"):
            collect(registry, clock=LATER, empty=empty)
    assert {one.size for one in blobs.stored()} == {6, 7}


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("change", [_cut, _flipped, lambda data: b"", None], ids=["cut", "flipped", "emptied", "gone"])
def test_a_damaged_artifact_is_never_loaded(
    registry: ModelRegistry, blobs: BlobStore, change: Callable[[bytes], bytes] | None
) -> None:
    from noria.storage import s3

    register(registry, "a", **{"model.bin": b"weights"})
    version = registry.get("late@1")
    for warm in (False, True):
        if warm:
            registry.files(version)  # an S3 store has it on this machine too; what counts is the store
        (stored,) = [one for one in blobs.stored() if one.digest]
        if stored.place.startswith("s3://"):
            s3.delete(stored.place) if change is None else s3.put(stored.place, change(b"weights"))
        else:
            file = Path(stored.place)
            file.chmod(0o600)
            file.unlink() if change is None else file.write_bytes(change(b"weights"))
        if warm and stored.place.startswith("s3://") and change is not None:
            break  # its copy here is verified, and whole
        with pytest.raises(
            IntegrityError, match=r"late@1 can't be loaded, for its file model.bin \(7 bytes\)"
        ) as caught:
            registry.files(version)
        assert "restore" in caught.value.hint
        assert registry.damage("late", 1)
        register(registry, f"again {warm}", model=b"weights")  # the same bytes: mended
        assert registry.files(version)["model.bin"].read_bytes() == b"weights"


def test_a_file_that_is_not_there_registers_nothing(registry: ModelRegistry, tmp_path: Path) -> None:
    register(registry, "a", model=b"weights")
    with pytest.raises(NotFoundError, match="there is no file"):
        register(registry, "b", model=tmp_path / "none")
    with pytest.raises(StorageError, match="can't be read"):
        register(registry, "b", model=tmp_path)
    assert [version.version for version in registry.versions("late")] == [1]
    assert collect(registry, clock=LATER).halves == 0


def test_a_full_disk_is_told_and_leaves_everything_as_it_was(tmp_path: Path) -> None:
    registry = ModelRegistry(f"sqlite:///{tmp_path}/r.db")
    register(registry, "a", model=b"weights")
    registry.promote("late", 1)
    big = tmp_path / "big"
    big.write_bytes(b"x" * (3 << 20))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        for data in (big, big.read_bytes()):
            with pytest.raises(StorageError, match=r"can't write a blob in .*blobs") as caught:
                register(registry, "b", small=b"small", model=data)
            assert "disk isn't full" in caught.value.hint
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [version.version for version in registry.versions("late")] == [1]
    assert registry.get("late").version == 1
    assert not list((tmp_path / "blobs").rglob(".*"))
    found = collect(registry, clock=LATER)
    assert (found.kept, found.orphans, found.halves) == (1, 1, 0)
    assert register(registry, "b", small=b"small", model=big) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], check=False).returncode
    ):
        pytest.skip("a file system can't be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)


def _register_for_ever(registry: ModelRegistry) -> None:
    for run in itertools.count():
        spec = {"x": "y" * 2000}
        registry.register("late", {"model": b"weights"}, servable="x", run_id=f"full {run}", spec=spec)


def test_a_disk_that_is_full_to_the_last_byte(small_disk: Path) -> None:
    registry = ModelRegistry(f"sqlite:///{small_disk}/r.db")
    register(registry, "a", model=b"weights")
    registry.promote("late", 1)
    with pytest.raises(StorageError, match="can't write a blob"):
        register(registry, "b", model=b"x" * (2 << 20))
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        _fill(filler)
    with pytest.raises(StorageError):  # now for the records
        _register_for_ever(registry)
    assert registry.get("late").version == 1
    filler.unlink()
    versions = registry.versions("late")
    assert [version.version for version in versions] == list(range(len(versions), 0, -1))
    assert all(registry.files(version) for version in versions)
    assert register(registry, "after", model=b"others") == len(versions) + 1


def test_a_backup_taken_while_it_works_is_whole(tmp_path: Path) -> None:
    """Records first, files after them; and a restored store is new, whatever times its files were given."""
    registry = ModelRegistry(f"sqlite:///{tmp_path}/r.db", tmp_path / "blobs")
    register(registry, "a", model=b"weights")
    registry.blobs.write(b"orphan")
    registry._records.close()
    shutil.copy2(tmp_path / "r.db", tmp_path / "copy.db")
    again = ModelRegistry(f"sqlite:///{tmp_path}/r.db", tmp_path / "blobs")
    collect(again, clock=LATER)
    shutil.copytree(tmp_path / "blobs", tmp_path / "blobs2", copy_function=shutil.copy2)
    for file in (tmp_path / "blobs2").rglob("*"):
        os.utime(file, (1, 1))
    restored = ModelRegistry(f"sqlite:///{tmp_path}/copy.db", tmp_path / "blobs2")
    assert collect(restored).kept == 1
    assert restored.files(restored.get("late@1"))["model"].read_bytes() == b"weights"


def test_on_the_command_line(tmp_path: Path) -> None:
    def noria(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "noria", "models", "gc", *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    state = tmp_path / ".noria"
    registry = ModelRegistry(f"sqlite:///{state}/records.db", state / "blobs")
    registry.blobs.write(b"orphan")
    done = noria("--older-than", "1ms")
    assert done.returncode == 1
    assert "is it the right registry?" in done.stderr
    register(registry, "a", model=b"weights")
    (state / "blobs" / ".writing-abc").write_bytes(b"half")
    assert json.loads(noria("--json").stdout)["young"] == 2
    printed = noria("--older-than", "1ms", "--dry-run").stdout
    assert printed.splitlines()[:2] == [
        "would be removed: 1 file (6 bytes) that no version refers to",
        "would be removed: 1 file (4 bytes) half written",
    ]
    assert noria("--older-than", "1ms").stdout.startswith("removed: 1 file (6 bytes)")
    assert json.loads(noria("--json").stdout)["orphans"] == 0
    done = noria("--older-than", "soon")
    assert (done.returncode, "'soon' is not a duration" in done.stderr) == (1, True)
