from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import noria as nr
from noria.core import BusyError, ConfigError, DataError, SchemaError, Settings, exclusive
from noria.pipelines import BatchResult
from noria.pipelines.extract import Input, pieces
from noria.pipelines.loads import Loads
from noria.pipelines.quarantine import QuarantineSummary, replay, show, summarize
from noria.storage import Put, Workspace
from noria.testing import ManualClock

SCHEMA = {"id": "int64", "s": "str?", "at": nr.Timestamp("s")}
HEAD = b"id,s,at\n"


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path), ManualClock(1_000_000_000_000_000)) as opened:
        yield opened


def put(workspace: Workspace, name: str, *rows: str, head: bytes = HEAD) -> None:
    file = workspace.settings.root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(head + "".join(f"{row}\n" for row in rows).encode())


def source(path: str = "d/*.csv", **options: Any) -> nr.Source:
    return nr.Source("rows", path, **{"schema": SCHEMA, **options})


def load(workspace: Workspace, made: nr.Source | None = None, **options: Any) -> BatchResult:
    result = nr.BatchProcessor(made or source(), workspace).run(**options)
    assert result.rows_in == result.rows_out + result.quarantined + result.filtered
    return result


def ids(workspace: Workspace) -> list[int]:
    return workspace.table("rows").read()["id"].to_list()


def quarantine(workspace: Workspace) -> list[tuple[str, int]]:
    return workspace.table("rows__quarantine").read().select("file", "position").rows()


def test_new_files_are_added_and_nothing_is_read_twice(workspace: Workspace) -> None:
    put(workspace, "d/a.csv", "1,a,1", "x,a,1")
    assert load(workspace).mode == "overwrite"
    put(workspace, "d/b.csv", "2,b,2", "y,b,1", "3,c,3")
    result = load(workspace)
    assert (result.mode, result.inputs, result.rows_in, result.rows_out, result.quarantined) == ("append", 1, 3, 2, 1)
    assert ids(workspace) == [1, 2, 3]
    assert quarantine(workspace) == [("d/a.csv", 2), ("d/b.csv", 2)]
    again = load(workspace)
    assert again == result
    assert workspace.table("rows").version() == result.table_version


def test_only_the_tail_of_a_grown_file_is_read_and_positions_go_on(workspace: Workspace) -> None:
    put(workspace, "d/a.csv", "1,a,1", "x,a,1")
    load(workspace)
    put(workspace, "d/a.csv", "1,a,1", "x,a,1", "2,b,2", "y,b,1")
    result = load(workspace)
    assert (result.mode, result.rows_in) == ("append", 2)
    put(workspace, "d/a.csv", "1,a,1", "x,a,1", "2,b,2", "y,b,1", "3,c,3", "z,c,3")
    assert load(workspace).rows_in == 2
    assert ids(workspace) == [1, 2, 3]
    assert quarantine(workspace) == [("d/a.csv", 2), ("d/a.csv", 4), ("d/a.csv", 6)]


def test_rows_that_come_while_a_file_is_read_are_loaded_once(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(workspace, "d/a.csv", "1,a,1")
    numbers = iter(range(2, 100))

    def grown_first(read: Input, *rest: Any) -> Iterator[Any]:
        with (workspace.settings.root / "d/a.csv").open("a") as stream:
            stream.write(f"{next(numbers)},a,1\n")
        yield from pieces(read, *rest)

    monkeypatch.setattr("noria.pipelines.batch.pieces", grown_first)
    assert [load(workspace).mode, load(workspace).mode, load(workspace).mode] == ["overwrite", "append", "append"]
    assert ids(workspace) == [1, 2, 3]


def test_a_line_that_was_not_finished_is_read_again(workspace: Workspace) -> None:
    file = workspace.settings.root / "a.csv"
    file.write_bytes(HEAD + b"1,a,1\n2,b,1")
    load(workspace, source("a.csv"))
    file.write_bytes(HEAD + b"1,a,1\n2,b,15\n")
    assert load(workspace, source("a.csv")).mode == "overwrite"
    assert workspace.table("rows").read()["at"].dt.epoch("s").to_list() == [1, 15]


@pytest.mark.parametrize(
    ("head", "first", "more"),
    [(HEAD, '1,a,1\n2,"x\n', 'y",2\n3,c,3\n'), (HEAD, '1,"a,1\n2,b,2\n', '3,c",3\n'), (b'id,at,s,"x\n', "1,1,a,b\n", '2,2,"b",c\n')],
)  # fmt: skip
def test_a_quote_that_is_closed_by_what_is_added_makes_the_rows_that_it_would_in_one_file(
    workspace: Workspace, head: bytes, first: str, more: str
) -> None:
    def tables() -> list[list[tuple[Any, ...]]]:
        bad = workspace.table("rows__quarantine").read().select("position", "reasons", "row")
        return [workspace.table("rows").read().rows(), bad.rows()]

    file = workspace.settings.root / "d/a.csv"
    put(workspace, "d/a.csv", head=head + first.encode())
    load(workspace)
    with file.open("a") as stream:
        stream.write(more)
    assert load(workspace).mode == "overwrite"
    grown = tables()
    load(workspace, full=True)
    assert tables() == grown


def test_a_changed_file_or_definition_or_full_reads_everything_anew(workspace: Workspace) -> None:
    put(workspace, "d/a.csv", "1,a,1")
    put(workspace, "d/b.csv", "2,b,2")
    load(workspace)
    put(workspace, "d/a.csv", "7,a,1")
    assert (load(workspace).mode, ids(workspace)) == ("overwrite", [7, 2])
    assert load(workspace, source(checks=[nr.between("id", 0, 5)])).quarantined == 1
    assert (load(workspace, full=True).mode, ids(workspace)) == ("overwrite", [7, 2])


def test_rows_of_files_that_are_gone_stay_and_are_not_lost_in_silence(workspace: Workspace) -> None:
    put(workspace, "d/a.csv", "1,a,1")
    put(workspace, "d/b.csv", "2,b,2")
    load(workspace)
    (workspace.settings.root / "d/a.csv").unlink()
    put(workspace, "d/c.csv", "3,c,3")
    load(workspace)
    assert ids(workspace) == [1, 2, 3]
    put(workspace, "d/b.csv", "20,b,2")
    with pytest.raises(DataError, match=r"d/a\.csv.*is gone") as caught:
        load(workspace)
    assert "--full" in caught.value.hint
    assert ids(workspace) == [1, 2, 3]
    load(workspace, full=True)
    assert ids(workspace) == [20, 3]


def test_new_rows_are_transformed_by_the_state_of_the_first(workspace: Workspace) -> None:
    made = source(steps=[nr.Encode(["s"])])
    put(workspace, "d/a.csv", "1,a,1", "2,c,1")
    load(workspace, made)
    put(workspace, "d/b.csv", "3,b,2", "4,c,2")
    assert load(workspace, made).mode == "append"
    assert workspace.table("rows").read()["s"].to_list() == [0.0, 1.0, -1.0, 1.0]
    load(workspace, made, full=True)
    assert workspace.table("rows").read()["s"].to_list() == [0.0, 2.0, 1.0, 2.0]


def test_a_key_is_unique_over_all_loads_and_a_bad_row_does_not_hide_a_good_one(workspace: Workspace) -> None:
    made = source(key="id", checks=[nr.unique("s", "at"), nr.one_of("s", ["a", "b", "c"])])
    put(workspace, "d/a.csv", "1,z,1", "1,a,1", "1,b,1", "2,a,1", "3,,1", "4,,1")
    first = load(workspace, made)
    assert (first.rows_out, first.by_rule) == (3, {"s one of a, b, c": 1, "id unique": 1, "s, at unique": 1})
    put(workspace, "d/b.csv", "1,c,9", "5,a,1", "6,b,1", "6,c,2")
    second = load(workspace, made)
    assert (second.mode, second.rows_out) == ("append", 1)
    assert ids(workspace) == [1, 3, 4, 6]
    table = workspace.table("rows__quarantine").read()
    assert table.select("file", "position", "reasons").rows() == [
        ("d/a.csv", 1, ["s one of a, b, c"]),
        ("d/a.csv", 3, ["id unique"]),
        ("d/a.csv", 4, ["s, at unique"]),
        ("d/b.csv", 1, ["id unique"]),
        ("d/b.csv", 2, ["s, at unique"]),
        ("d/b.csv", 4, ["id unique"]),
    ]


FLOATS = {"id": "int64", "x": "float64?"}


@pytest.mark.parametrize(
    ("options", "first", "second", "mode"),
    [
        ({"checks": [nr.unique("x")], "steps": [nr.Normalize(["x"])]}, ["1,10", "2,20"], ["3,10", "4,40"], "overwrite"),
        ({"key": "id", "steps": [nr.Drop(["id"])]}, ["1,10", "2,20"], ["1,30", "4,40"], "overwrite"),
        ({"key": "id", "where": nr.col("x") > 0}, ["1,-1", "2,20"], ["1,30", "4,40"], "overwrite"),
        ({"key": "id", "steps": [nr.DropMissing(["x"])]}, ["1,", "2,20"], ["1,30", "4,40"], "overwrite"),
        ({"key": "id", "steps": [nr.Normalize(["x"])]}, ["1,10", "2,10"], ["1,30", "4,10"], "append"),
    ],
)
def test_a_key_is_as_unique_as_if_all_were_read_at_once(
    workspace: Workspace, options: dict[str, Any], first: list[str], second: list[str], mode: str
) -> None:
    made = source(schema=FLOATS, **options)
    put(workspace, "d/a.csv", *first, head=b"id,x\n")
    load(workspace, made)
    put(workspace, "d/b.csv", *second, head=b"id,x\n")
    assert load(workspace, made).mode == mode
    table, bad = workspace.table("rows").read(), quarantine(workspace)
    assert bad == [("d/b.csv", 1)]
    load(workspace, made, full=True)
    assert quarantine(workspace) == bad
    if mode == "overwrite":  # else the state is another
        assert workspace.table("rows").read().equals(table)


def test_too_many_bad_rows_stop_the_run_and_leave_the_table(workspace: Workspace) -> None:
    put(workspace, "d/a.csv", "1,a,1", "2,a,1")
    load(workspace)
    put(workspace, "d/b.csv", "x,a,1", "y,a,1")
    with pytest.raises(DataError, match=r"2 of 2 rows break the contract: id: not int64 \(2\)"):
        load(workspace, source("d/b.csv"))
    with pytest.raises(DataError, match="2 of 4 rows"):
        load(workspace, source(max_bad=0.4))
    assert ids(workspace) == [1, 2]
    put(workspace, "d/b.csv", "x,a,1", "3,a,1", "4,a,1")
    with pytest.raises(DataError, match="1 of 5 rows"):
        load(workspace, source(max_bad=0.1))
    assert ids(workspace) == [1, 2]
    assert load(workspace, source(max_bad=0.2)).rows_out == 4


def test_rows_that_are_not_fresh_stop_the_run(workspace: Workspace) -> None:
    put(workspace, "d/a.csv", "1,a,999990000")
    load(workspace, source(fresh="3h"))
    with pytest.raises(DataError, match="the newest at is 2001-09-08T"):
        load(workspace, source(fresh="2h"))


def test_a_lost_or_retyped_column_in_one_of_many_files_stops_before_anything_is_written(workspace: Workspace) -> None:
    put(workspace, "d/a.csv", "1,a,1")
    put(workspace, "d/b.csv", "2,b", head=b"id,s\n")
    with pytest.raises(SchemaError, match=r"d/b\.csv has no column 'at'"):
        load(workspace)
    assert workspace.table("rows").version() is None
    pl.DataFrame({"id": [1], "s": ["a"], "at": [True]}).write_parquet(workspace.settings.root / "p.parquet")
    with pytest.raises(SchemaError, match=r"p\.parquet has 'at' as Boolean, which can't become timestamp"):
        load(workspace, source("p.parquet"))
    put(workspace, "d/b.csv", "9,2,b,2", head=b"new,id,s,at\n")
    assert load(workspace).extra_columns == ("new",)


def test_many_pieces_are_as_one(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{i if i % 50 else 'bad'},{i % 7 or ''},{i}" for i in range(3000)]
    put(workspace, "d/a.csv", *rows)
    made = source(checks=[nr.unique("s", "id")], where=nr.col("id") % 3 != 0, steps=[nr.Encode(["s"])])
    whole = load(workspace, made)
    table, bad = workspace.table("rows").read(), workspace.table("rows__quarantine").read()
    monkeypatch.setattr("noria.pipelines.batch.PIECE_BYTES", 500)
    monkeypatch.setattr("noria.pipelines.compute.IN_MEMORY", 2000)
    again = load(workspace, made, full=True)
    assert workspace.table("rows").read().equals(table)
    assert workspace.table("rows__quarantine").read().drop("run_id").equals(bad.drop("run_id"))
    assert again.rows == whole.rows
    assert again.by_rule == whole.by_rule
    assert not list((workspace.settings.state_dir / "scratch").rglob("*.arrow"))


def test_two_at_once_one_is_refused_and_other_sources_are_not(workspace: Workspace) -> None:
    put(workspace, "d/a.csv", "1,a,1")
    with (
        exclusive(workspace.settings.state_dir / "locks" / "source-rows", "a test"),
        pytest.raises(BusyError, match="loading the source 'rows' is already going on"),
    ):
        load(workspace)
    load(workspace)


def test_appends_of_different_pipelines_to_one_table_both_succeed(workspace: Workspace) -> None:
    frame = pl.DataFrame({"id": [1]})
    workspace.table("shared").write(frame, run_id="first")
    together = threading.Barrier(4)

    def work(number: int) -> None:
        with Workspace.open(workspace.settings) as own:
            together.wait()
            for turn in range(5):
                own.table("shared").write(frame, run_id=f"{number}-{turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(workspace.table("shared").read()) == 21


def test_a_load_that_was_written_down_is_finished_by_the_next_run(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(workspace, "d/a.csv", "1,a,1", "x,a,1")
    for stop_at in ("rows__quarantine", "rows"):
        put(workspace, f"d/b-{stop_at}.csv", "2,b,1")
        real = type(workspace.table("rows")).commit

        def commit(self: Any, *args: Any, stop: str = stop_at, real: Any = real, **options: Any) -> int:
            if self.name == stop:
                raise KeyboardInterrupt
            made: int = real(self, *args, **options)
            return made

        with monkeypatch.context() as patched:
            patched.setattr(type(workspace.table("rows")), "commit", commit)
            with pytest.raises(KeyboardInterrupt):
                load(workspace, run_id=stop_at)
        put(workspace, f"d/c-{stop_at}.csv", "3,b,1")  # what came later is not taken for what was loaded
        load(workspace)
    assert sorted(ids(workspace)) == [1, 2, 2, 3, 3]
    assert quarantine(workspace) == [("d/a.csv", 2)]
    assert all(made.done for made in Loads(workspace, "rows").all())


KILLED = """
import sys
import noria as nr
from noria.core import Settings
from noria.storage import Put, Workspace
source = nr.Source("rows", "d/*.csv", schema={"id": "int64", "s": "str?", "at": nr.Timestamp("s")},
                   key="id", steps=[nr.Encode(["s"], method="ordinal")])
import noria.pipelines.batch as batch
batch.PIECE_BYTES = 20_000
print("ready", flush=True)
with Workspace.open(Settings(__import__("pathlib").Path(sys.argv[1]))) as workspace:
    nr.BatchProcessor(source, workspace).run(sys.argv[2])
print("done", flush=True)
"""


def test_kill_9_at_any_instant_leaves_what_a_clean_run_makes(tmp_path: Path) -> None:
    chance, kills = random.Random(7), 0

    def rows(start: int) -> list[str]:
        return [f"{i if i % 13 else 'bad'},{i % 5},{i}" for i in range(start, start + 6000)]

    crashed, clean = (Settings(tmp_path / name) for name in ("crashed", "clean"))
    for turn in range(3):
        for settings in (crashed, clean):
            file = settings.root / "d" / f"{turn}.csv"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(HEAD + "\n".join(rows(turn * 6000)).encode() + b"\n")
        subprocess.run([sys.executable, "-c", KILLED, str(clean.root), f"run-{turn}"], check=True, capture_output=True)
        done = False
        for _ in range(4):
            command = [sys.executable, "-c", KILLED, str(crashed.root), f"run-{turn}"]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
                assert child.stdout is not None
                assert child.stdout.readline() == b"ready\n"
                time.sleep(chance.random() * 0.3)
                os.kill(child.pid, signal.SIGKILL)
                done = b"done" in child.stdout.read()
                kills += not done
        subprocess.run(
            [sys.executable, "-c", KILLED, str(crashed.root), f"run-{turn}"], check=True, capture_output=True
        )
    assert kills > 3, "the runs were over before they could be killed"
    with Workspace.open(crashed) as one, Workspace.open(clean) as two:
        for name in ("rows", "rows__quarantine"):
            mine, other = one.table(name).read(), two.table(name).read()
            keep = [column for column in mine.columns if column not in ("at", "run_id") or name == "rows"]
            assert mine.select(keep).equals(other.select(keep))


def test_quarantined_rows_come_back_when_the_contract_is_mended(workspace: Workspace) -> None:
    put(workspace, "d/a.csv", "1,a,1", "2,b,2", "x,a,3", "3,,4", "4,too,many,5", '5,"multi\nline",6', "2,a,9")
    strict = source(checks=[nr.one_of("s", ["a"])], key="id", schema={**SCHEMA, "s": "str"})
    assert load(workspace, strict).rows_out == 2
    assert summarize(workspace, "rows") == QuarantineSummary(
        "rows",
        5,
        {"s one of a": 2, "id: not int64": 1, "s: missing": 1, "4 fields, and the header has 3": 1},
        "2001-09-09T01:46:40Z",
    )
    shown = show(workspace, "rows", rule="id: not int64")
    assert shown.select("position", "reasons").rows() == [(3, ["id: 'x' is not int64"])]
    lax = source(key="id")
    result = replay(lax, workspace)
    # The row with id 2 that came first into the table stays; the other is now a repeated key.
    assert (result.rows_in, result.rows_out, result.quarantined) == (5, 2, 3)
    assert ids(workspace) == [1, 2, 3, 5]
    assert workspace.table("rows").read()["s"].to_list() == ["a", "a", None, "multi\nline"]
    left = workspace.table("rows__quarantine").read().select("file", "position", "reasons").rows()
    assert sorted(left) == [
        ("d/a.csv", 2, ["id unique"]),
        ("d/a.csv", 3, ["id: 'x' is not int64"]),
        ("d/a.csv", 5, ["4 fields, and the header has 3"]),
    ]
    assert replay(lax, workspace).rows_out == 0
    put(workspace, "d/b.csv", "6,b,1")
    assert load(workspace, lax).mode == "append"
    assert ids(workspace) == [1, 2, 3, 5, 6]


@pytest.mark.parametrize(
    "change",
    [
        {"steps": [nr.Clip(["x"], 0, 5)]},
        {"steps": []},
        {"where": nr.col("x") > 1},
        {"path": "e/*.csv"},
        {"schema": {"id": "int32", "x": "float64?"}},
        {"schema": {"x": "float64?", "id": "int64"}},
        {"schema": {"id": "int64", "x": "float64?", "y": "str?"}},
    ],
)
def test_a_replay_after_more_than_the_checks_changed_is_refused(workspace: Workspace, change: dict[str, Any]) -> None:
    put(workspace, "d/a.csv", "1,10", "2,20", "3,99", head=b"id,x\n")
    options: dict[str, Any] = {"schema": FLOATS, "steps": [nr.Normalize(["x"])]}
    load(workspace, source(checks=[nr.between("x", 0, 50)], **options))
    before = workspace.table("rows").version()
    with pytest.raises(ConfigError, match="another definition") as caught:
        replay(source(checks=[nr.between("x", 0, 100)], **{**options, **change}), workspace)
    assert caught.value.hint == "noria run rows --full"
    assert workspace.table("rows").version() == before
    lax = source(checks=[nr.between("x", 0, 100)], max_bad=0.9, **{**options, "schema": {**FLOATS, "id": "int64?"}})
    assert replay(lax, workspace).rows_out == 1
    assert ids(workspace) == [1, 2, 3]


def test_a_load_that_was_recorded_without_its_shape_takes_no_replay(workspace: Workspace) -> None:
    put(workspace, "d/a.csv", "1,a,1", "2,b,2")
    load(workspace, source(checks=[nr.one_of("s", ["a"])]))
    collection, key = "loads", "rows/000000000000"
    record = workspace.records.get(collection, key)
    assert record is not None
    workspace.records.commit(Put(collection, key, {n: v for n, v in record.data.items() if n != "shape"}))
    with pytest.raises(ConfigError, match="another definition"):
        replay(source(), workspace)
    assert load(workspace).mode == "overwrite"
    assert replay(source(), workspace).rows_in == 0


def test_a_delta_table_of_others_is_a_source(workspace: Workspace) -> None:
    from deltalake import write_deltalake

    folder = workspace.settings.root / "theirs"
    made = nr.Source("rows", "delta://theirs", schema={"id": "int64", "s": "str?"})
    with pytest.raises(DataError, match="there is no file"):
        load(workspace, made)
    write_deltalake(str(folder), pl.DataFrame({"id": [1, 2], "s": ["a", None], "more": [1, 2]}))
    assert load(workspace, made).extra_columns == ("more",)
    version = workspace.table("rows").version()
    load(workspace, made)
    assert workspace.table("rows").version() == version
    write_deltalake(str(folder), pl.DataFrame({"id": [3], "s": ["c"], "more": [3]}), mode="append")
    assert load(workspace, made).rows_out == 3
    write_deltalake(str(folder), pl.DataFrame({"id": ["x"]}), mode="overwrite", schema_mode="overwrite")
    with pytest.raises(SchemaError, match="has no column 's'"):
        load(workspace, made)
