"""Tables, blobs and files on an S3-compatible server."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from real_servers import free_port, s3_server

import noria as nr
from noria.core import (
    ConfigError,
    ConflictError,
    DataError,
    IntegrityError,
    NotFoundError,
    Settings,
    StorageError,
    StorageSettings,
)
from noria.storage import BlobStore, Workspace, open_blobs, open_table, s3
from noria.storage.tables import Table
from noria.testing import BlobStoreConformance, TableConformance

pytest.importorskip("obstore")


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[dict[str, str]]:
    with s3_server() as variables:
        before = dict(os.environ)
        os.environ.update(variables)
        yield variables
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    return f"s3://data/{abs(hash(request.node.nodeid)):x}"


class TestS3Table(TableConformance):
    tick = 1.1  # a HEAD gives times in seconds

    @pytest.fixture(autouse=True)
    def _prefix(self, prefix: str) -> None:
        self.prefix = prefix

    def table(self, name: str) -> Table:
        return open_table(self.prefix, name)


class TestS3Blobs(BlobStoreConformance):
    @pytest.fixture(autouse=True)
    def _prefix(self, prefix: str, tmp_path: Path) -> None:
        self.prefix, self.root = prefix, tmp_path

    def store(self) -> BlobStore:
        return open_blobs(self.prefix, self.root)

    def test_damage_is_found(self) -> None:
        store = self.store()
        blob = store.write(b"abc")
        s3.put(f"{self.prefix}/{blob.digest[:2]}/{blob.digest[2:]}", b"abd")
        with pytest.raises(IntegrityError, match="corrupt"):
            store.read(blob.digest)
        with pytest.raises(IntegrityError, match="corrupt"):
            store.path(blob.digest)
        store.write(b"abc")
        assert store.read(blob.digest) == b"abc"

    def test_a_local_file_is_mended_and_is_there_while_the_server_is_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        store = self.store()
        blob, absent = store.write(b"weights"), store.write(b"others")
        file = store.path(blob.digest)
        file.chmod(0o600)
        file.write_bytes(b"Weights")
        assert store.path(blob.digest).read_bytes() == b"weights"
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        assert store.path(blob.digest).read_bytes() == b"weights"
        with pytest.raises(StorageError, match="can't be reached"):
            store.path(absent.digest)

    def test_a_large_blob_is_read_in_several_requests(self) -> None:
        store = self.store()
        data = random.Random(0).randbytes(2 * s3.BLOCK + 1)
        assert store.path(store.write(data).digest).read_bytes() == data


def test_objects_are_listed_by_a_pattern(prefix: str) -> None:
    for name in ("a.csv", "b.csv", "d/c.csv", "d/e/f.csv", "a.jsonl", "x[1].csv"):
        s3.put(f"{prefix}/{name}", name.encode())

    def names(pattern: str) -> list[str]:
        return [one.url.removeprefix(prefix + "/") for one in s3.listing(f"{prefix}/{pattern}")]

    assert names("*.csv") == ["a.csv", "b.csv", "x[1].csv"]
    assert names("**/*.csv") == ["a.csv", "b.csv", "d/c.csv", "d/e/f.csv", "x[1].csv"]
    assert names("d/*.csv") == ["d/c.csv"]
    assert names("[ab].csv") == ["a.csv", "b.csv"]
    assert names("[!a].csv") == ["b.csv"]
    assert names("?.*") == ["a.csv", "a.jsonl", "b.csv"]
    assert names("a.csv") == ["a.csv"]
    assert names("none/*") == []
    with pytest.raises(ConfigError, match="no pattern"):
        names("[z-a].csv")
    first = s3.listing(f"{prefix}/a.csv")[0]
    assert first.size == 5
    s3.put(f"{prefix}/a.csv", b"other")
    assert s3.listing(f"{prefix}/a.csv")[0].version != first.version
    with pytest.raises(NotFoundError):
        s3.listing(f"{prefix}/none.csv")


def test_an_object_is_read_in_blocks(prefix: str) -> None:
    data = bytes(range(256)) * 100_000
    s3.put(f"{prefix}/big", data)
    with s3.open_object(f"{prefix}/big", len(data)) as stream:
        assert stream.read(1000) == data[:1000]
        stream.seek(20_000_000)
        assert stream.read(1000) == data[20_000_000:20_001_000]
        assert stream.read() == data[20_001_000:]


def test_ranges_and_blocks_are_of_one_version(prefix: str) -> None:
    data = bytes(range(256)) * 1000
    url = f"{prefix}/object"
    s3.put(url, data)
    assert s3.read_range(url, 255_990, 100) == data[-10:]
    assert list(s3.blocks(url, 100_000)) == [data[:100_000], data[100_000:200_000], data[200_000:]]
    s3.put(f"{prefix}/empty", b"")
    assert list(s3.blocks(f"{prefix}/empty")) == [b""]
    assert s3.open_object(f"{prefix}/empty", 0).read() == b""
    reading, raw = s3.blocks(url, 100_000), s3.open_object(url, len(data))
    next(reading)
    s3.put(url, data[::-1])
    with pytest.raises(ConflictError, match="replaced"):
        next(reading)
    assert raw.read(1) == data[-1:]
    with pytest.raises(ConflictError, match="replaced"), s3.open_object(url, len(data) + 1) as stream:
        stream.read()
    with pytest.raises(NotFoundError):
        next(s3.blocks(f"{prefix}/none"))


def test_polars_reads_with_the_options(prefix: str) -> None:
    frame = pl.DataFrame({"id": [1, 2, 3], "s": ["a", None, "c"]})
    storage = s3.options(os.environ)
    for number in range(2):
        frame.write_parquet(f"{prefix}/p/{number}.parquet", storage_options=storage)
        s3.put(f"{prefix}/c/{number}.csv", frame.write_csv().encode())
    assert pl.scan_parquet(f"{prefix}/p/*.parquet", storage_options=storage).collect().equals(pl.concat([frame] * 2))
    assert pl.scan_csv(f"{prefix}/c/*.csv", storage_options=storage).collect().equals(pl.concat([frame] * 2))


def test_delta_commits_by_conditional_writes(prefix: str) -> None:
    from deltalake import DeltaTable, write_deltalake

    url, storage = f"{prefix}/raw", s3.options(os.environ)
    write_deltalake(url, pl.DataFrame({"id": [0]}), storage_options=storage)
    code = (
        "import os, sys, polars as pl; from deltalake import write_deltalake; from noria.storage.s3 import options\n"
        "for turn in range(5):\n"
        "    frame = pl.DataFrame({'id': [int(sys.argv[2])]})\n"
        "    write_deltalake(sys.argv[1], frame, mode='append', storage_options=options(os.environ))\n"
    )
    writing = [subprocess.Popen([sys.executable, "-c", code, url, str(who)]) for who in (1, 2, 3)]
    assert [process.wait() for process in writing] == [0, 0, 0]
    table = DeltaTable(url, storage_options=storage)
    assert table.version() == 15
    assert sorted(pl.read_delta(url, storage_options=storage)["id"]) == [0] + [1] * 5 + [2] * 5 + [3] * 5
    write_deltalake(url, pl.DataFrame({"id": [9]}), mode="overwrite", storage_options=storage)
    assert pl.read_delta(url, storage_options=storage)["id"].to_list() == [9]


def test_options_are_the_usual_variables_and_plain_http_stays_on_this_machine() -> None:
    assert s3.options({}) == {"aws_region": "us-east-1", "aws_conditional_put": "etag"}
    usual = {
        "AWS_ENDPOINT_URL": "https://a",
        "AWS_ENDPOINT_URL_S3": "https://s3",
        "AWS_REGION": "eu",
        "AWS_DEFAULT_REGION": "us",
    }
    assert s3.options(usual) == {"aws_endpoint_url": "https://s3", "aws_region": "eu", "aws_conditional_put": "etag"}
    for host in ("localhost:9000", "127.0.0.1", "[::1]:9000"):
        assert s3.options({"AWS_ENDPOINT_URL": f"http://{host}"})["aws_allow_http"] == "true"
    far = {"AWS_ENDPOINT_URL": "http://minio.example.org:9000"}
    with pytest.raises(ConfigError, match="unencrypted"):
        s3.options(far)
    assert s3.options({**far, "AWS_ALLOW_HTTP": "true"})["aws_allow_http"] == "true"


def test_a_source_of_every_kind_loads_what_is_new_into_tables_on_the_server(prefix: str, tmp_path: Path) -> None:
    import gzip
    import io

    storage = replace(StorageSettings(), tables=f"{prefix}/tables", blobs=f"{prefix}/blobs")
    parquet = io.BytesIO()
    pl.DataFrame({"id": [1, 2], "s": ["a", None]}).write_parquet(parquet)
    bodies = {
        "csv": b"id,s\n1,a\n2,\n",
        "csv.gz": gzip.compress(b"id,s\n1,a\n2,\n"),
        "jsonl": b'{"id": 1, "s": "a"}\n{"id": 2}\n',
        "parquet": parquet.getvalue(),
    }
    with Workspace.open(Settings(tmp_path, storage=storage)) as workspace:
        for number, (kind, body) in enumerate(bodies.items()):
            s3.put(f"{prefix}/in/{kind}/1.{kind}", body)
            source = nr.Source(f"rows{number}", f"{prefix}/in/{kind}/*.{kind}", {"id": "int64", "s": "str?"})
            result = nr.BatchProcessor(source, workspace).run()
            assert (result.rows_in, result.rows_out) == (2, 2)
            s3.put(f"{prefix}/in/{kind}/2.{kind}", body)
            assert nr.BatchProcessor(source, workspace).run().mode == "append"
            assert workspace.table(source.name).read().rows() == [(1, "a"), (2, None)] * 2
        missing = nr.Source("none", f"{prefix}/none/*.csv", {"id": "int64"})
        with pytest.raises((DataError, NotFoundError), match="there is no"):
            nr.BatchProcessor(missing, workspace).run()


def test_writers_of_one_table_at_once_lose_nothing(prefix: str) -> None:
    open_table(prefix, "shared").write(pl.DataFrame({"id": [0]}), run_id="first")

    def work(number: int) -> None:
        table = open_table(prefix, "shared")
        for turn in range(4):
            table.write(pl.DataFrame({"id": [number]}), run_id=f"{number}-{turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(open_table(prefix, "shared").read()["id"].to_list()) == [0, *[1] * 4, *[2] * 4, *[3] * 4]


def test_a_dead_server_is_named_with_what_to_check(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StorageError, match="can't be reached") as caught:
        s3.get(f"{prefix}/x")
    assert "AWS_ENDPOINT_URL" in caught.value.hint


def test_a_file_that_changes_while_it_is_stored_is_refused(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from noria.storage import s3_blobs

    store, file = open_blobs(prefix, tmp_path), tmp_path / "file"
    for size in (10, 12 << 20):  # in one request, and in several
        file.write_bytes(b"x" * size)
        read = s3_blobs._blob

        def changed(blocks: Iterator[bytes], read=read, size=size):
            found = read(blocks)
            file.write_bytes(b"y" * size)
            return found

        monkeypatch.setattr(s3_blobs, "_blob", changed)
        with pytest.raises(IntegrityError, match="changed while it was stored"):
            store.write(file)
        monkeypatch.undo()
        assert list(store.stored()) == []


def test_only_blobs_are_listed_and_halves_of_the_cache(prefix: str, tmp_path: Path) -> None:
    store = open_blobs(prefix, tmp_path)
    blob = store.write(b"abc")
    store.path(blob.digest)
    s3.put(f"{prefix}/backup/2026/{blob.digest}", b"another's")
    s3.put(f"{prefix}/x{blob.digest[:2]}/{blob.digest[2:]}", b"another's")
    half = tmp_path / ".noria" / "cache" / "blobs" / ".writing-x"
    half.write_bytes(b"12345")
    found = sorted(store.stored(), key=lambda one: one.digest)
    assert [(one.digest, one.size) for one in found] == [("", 5), (blob.digest, 3)]
    assert store.remove(found[0])
    assert not half.exists()
