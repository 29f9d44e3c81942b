from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import ConfigError, DataError, SchemaError, Settings
from noria.pipelines import BatchResult
from noria.storage import Workspace

SCHEMA = {"id": "int64", "x": "float32?", "s": "str?", "at": nr.Timestamp("s")}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def load(workspace: Workspace, name: str, data: bytes, run_id: str = "r", **options: Any) -> BatchResult:
    (workspace.settings.root / name).write_bytes(data)
    options = {"schema": SCHEMA, **options}
    result = nr.BatchProcessor(nr.Source("rows", name, **options), workspace).run(run_id)
    assert result.rows_in == result.rows_out + result.quarantined + result.filtered
    assert len(workspace.table("rows").read()) == result.rows_out
    assert len(workspace.table("rows__quarantine").read()) == result.quarantined
    return result


def reasons(workspace: Workspace) -> list[list[str]]:
    return workspace.table("rows__quarantine").read().sort("position")["reasons"].to_list()


def test_good_rows_are_typed_and_bad_ones_kept_with_every_reason(workspace: Workspace) -> None:
    data = b"id,x,s,at\n1,0.5,a,10\n2,,,20\nthree,much,b,30\n,1,c,\n99999999999999999999,1e3,d,40\n"
    result = load(workspace, "a.csv", data, checks=[nr.between("id", 1, 1)])
    assert (result.rows_in, result.rows_out, result.quarantined) == (5, 1, 4)
    row = workspace.table("rows").read().row(0, named=True)
    assert row == {"id": 1, "x": 0.5, "s": "a", "at": datetime(1970, 1, 1, 0, 0, 10, tzinfo=UTC)}
    assert reasons(workspace) == [
        ["id between 1 and 1"],
        ["id: 'three' is not int64", "x: 'much' is not float32"],
        ["id: missing", "at: missing"],
        ["id: '99999999999999999999' is not int64"],
    ]
    quarantine = workspace.table("rows__quarantine").read().sort("position")
    assert quarantine["position"].to_list() == [2, 3, 4, 5]
    assert json.loads(quarantine["row"][1]) == {"id": "three", "x": "much", "s": "b", "at": "30"}
    assert result.by_rule["id: not int64"] == 2


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("int8", {"127": 127, "-128": -128, " 7 ": 7, "+7": 7, "7.0": 7}, ["128", "2.5", "1e3", "x", "0x1", "１"]),
        ("int64", {str(2**63 - 1): 2**63 - 1}, [str(2**63)]),
        ("float64", {"1e3": 1000.0, "-.5": -0.5, " 1 ": 1.0}, ["inf", "1e999", "1,5", "one"]),
        ("bool", {"true": True, "False": False, "1": True, "0": False}, ["yes", "2"]),
        ("date", {"2020-02-29": date(2020, 2, 29)}, ["2021-02-29", "2020", "x"]),
        ("str", {" a ": " a ", "NA": "NA"}, []),
    ],
)
def test_text_becomes_its_type_or_is_refused(
    workspace: Workspace, dtype: str, good: dict[str, Any], bad: list[str]
) -> None:
    lines = "v\n" + "".join(f'"{text}"\n' for text in [*good, *bad])
    result = load(workspace, "a.csv", lines.encode(), schema={"v": dtype})
    assert workspace.table("rows").read()["v"].to_list() == list(good.values())
    assert result.quarantined == len(bad)


@pytest.mark.parametrize(
    ("unit", "texts"),
    [
        ("s", ["1577836800"]),
        ("ms", ["1577836800000"]),
        ("us", ["1577836800000000"]),
        ("ns", ["1577836800000000000"]),
        ("iso", ["2020-01-01T00:00:00Z", "2020-01-01", "2020-01-01 00:00:00", "2020-01-01T02:00:00+02:00"]),
    ],
)
def test_instants_in_every_unit(workspace: Workspace, unit: str, texts: list[str]) -> None:
    wrong = ["x", "99999999999999999999"] + (["999999999999999"] if unit == "s" else [])
    lines = "at\n" + "\n".join([*texts, *wrong]) + "\n"
    result = load(workspace, "a.csv", lines.encode(), schema={"at": nr.Timestamp(unit)})
    assert set(workspace.table("rows").read()["at"].to_list()) == {datetime(2020, 1, 1, tzinfo=UTC)}
    assert (result.rows_out, result.quarantined) == (len(texts), len(wrong))


@pytest.mark.parametrize(
    ("data", "out", "bad"),
    [
        (b"\xef\xbb\xbfid,x,s,at\r\n1,,a,10\r\n", 1, 0),
        (b'id,x,s,at\n1,,"line\nbreak, and ""quotes""",10\n2,,b,20\n', 2, 0),
        (b"id,x,s,at\n1,,a,10\n2,,b,20,30\n3,,c,30\n", 2, 1),
        (b"id,x,s,at\n1,,a,10\n2\n3,,c,30\n", 2, 1),
        (b"id,x,s,at\n1,,\xff\xfe,10\n2,,b,20\n", 1, 1),
        (b"id,x,s,at\n1,,a\x00b,10\n2,,b,20\n", 2, 0),
        (b"id,x,s,at\n", 0, 0),
        (b"at,s,extra,x,id\n10,a,!,,1\n", 1, 0),
        (b"id,x,s,at\n\n1,,a,10\n\n", 1, None),
    ],
)
def test_odd_csv_files_lose_no_good_row(workspace: Workspace, data: bytes, out: int, bad: int | None) -> None:
    result = load(workspace, "a.csv", data)
    assert result.rows_out == out
    assert bad is None or result.quarantined == bad


@pytest.mark.parametrize("data", [b"", b"   \n", b"identity,x,s,at\n1,,a,10\n"])
def test_a_lost_column_stops_before_anything_is_written(workspace: Workspace, data: bytes) -> None:
    load(workspace, "a.csv", b"id,x,s,at\n1,,a,10\n")
    with pytest.raises(SchemaError):
        load(workspace, "a.csv", data, run_id="s")
    assert len(workspace.table("rows").read()) == 1


def test_a_lost_column_names_the_nearest(workspace: Workspace) -> None:
    with pytest.raises(SchemaError, match="no column 'id'") as caught:
        load(workspace, "a.csv", b"ids,x,s,at\n1,,a,10\n")
    assert "did you mean 'ids'" in caught.value.hint


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.parquet"])
def test_a_file_that_is_not_what_its_name_says_is_explained(workspace: Workspace, name: str) -> None:
    with pytest.raises(DataError, match="can't be read"):
        load(workspace, name, b"not at all")
    with pytest.raises(DataError, match="can't be read"):
        load(workspace, "b.csv.gz", gzip.compress(b"id,x,s,at\n1,,a,10\n" * 1000)[:-20])


def test_gzip_and_json_lines(workspace: Workspace) -> None:
    lines = [
        {"id": 1, "x": 0.5, "s": "a", "at": 10},
        {"id": "2", "s": None, "at": 20, "more": [1]},
        {"id": 2**70, "at": 30},
        {"id": 3.5, "at": 30},
        {"id": True, "at": 30},
        {"id": 4, "s": {"deep": 1}, "at": 40},
    ]
    data = "\n".join(map(json.dumps, lines)).encode() + b'\n{"id": 5, \n[1]\n\n7\n'
    result = load(workspace, "a.jsonl.gz", gzip.compress(data))
    assert workspace.table("rows").read()["id"].to_list() == [1, 2, 4]
    assert workspace.table("rows").read()["s"].to_list() == ["a", None, '{"deep":1}']
    assert (result.rows_in, result.quarantined) == (9, 6)
    assert result.extra_columns == ("more",)
    assert load(workspace, "b.jsonl", b"", run_id="empty").rows_in == 0


def test_parquet_of_other_types_is_cast_without_changing_values(workspace: Workspace) -> None:
    frame = pl.DataFrame(
        {
            "id": [1.0, 2.5, None, 4.0],
            "x": pl.Series([Decimal("0.5"), None, Decimal(1), Decimal(2)]),
            "s": pl.Series(["a", "b", None, "a"], dtype=pl.Categorical),
            "at": pl.Series([1_577_836_800_000] * 4).cast(pl.Datetime("ms")),
        }
    )
    frame.write_parquet(workspace.settings.root / "a.parquet")
    data = (workspace.settings.root / "a.parquet").read_bytes()
    result = load(workspace, "a.parquet", data)
    assert workspace.table("rows").read()["id"].to_list() == [1, 4]
    assert workspace.table("rows").read()["at"][0] == datetime(2020, 1, 1, tzinfo=UTC)
    assert result.quarantined == 2


def test_many_files_are_one_table_with_positions_of_their_own(workspace: Workspace) -> None:
    for n, rows in enumerate((b"1,,a,1\nx,,b,2\n", b"2,,a,1\n1,,b,2\n", b"y,,c,3\n")):
        (workspace.settings.root / f"part{n}.csv").write_bytes(b"id,x,s,at\n" + rows)
    source = nr.Source("rows", "part*.csv", schema=SCHEMA, key="id")
    result = nr.BatchProcessor(source, workspace).run("r")
    assert (result.rows_in, result.rows_out, result.quarantined) == (5, 2, 3)
    bad = workspace.table("rows__quarantine").read().sort("file", "position")
    assert [(Path(f).name, p) for f, p in bad.select("file", "position").iter_rows()] == [
        ("part0.csv", 2),
        ("part1.csv", 2),
        ("part2.csv", 1),
    ]
    assert bad["reasons"].to_list()[1] == ["id unique"]
    assert set(source.inputs(workspace.settings)) == {"part0.csv", "part1.csv", "part2.csv"}


def test_filtered_and_dropped_rows_are_counted(workspace: Workspace) -> None:
    data = b"id,x,s,at\n1,,a,10\n2,1,b,20\n3,2,c,30\n"
    result = load(workspace, "a.csv", data, where=nr.col("id") > 1, steps=[nr.DropMissing(["x"]), nr.Normalize(["x"])])
    assert (result.rows_out, result.filtered) == (2, 1)
    assert workspace.table("rows").read()["x"].to_list() == [-1.0, 1.0]
    assert workspace.records.get("steps", "rows@r") is not None


def test_the_table_mirrors_the_file_and_a_run_done_twice_is_done_once(workspace: Workspace) -> None:
    first = load(workspace, "a.csv", b"id,x,s,at\n1,,a,10\n", "one")
    assert load(workspace, "a.csv", b"id,x,s,at\n1,,a,10\n", "one").table_version == first.table_version
    second = load(workspace, "a.csv", b"id,x,s,at\n2,,a,10\n3,,a,10\n", "two")
    assert second.table_version > first.table_version


def test_checks(workspace: Workspace) -> None:
    data = b"id,x,s,at\n1,,red,10\n2,,blue,20\n3,,,30\n3,,red,40\n"
    rules = [nr.one_of("s", ["red"]), nr.matches("s", "^[a-z]+$"), nr.unique("id")]
    load(workspace, "a.csv", data, checks=rules)
    assert reasons(workspace) == [["s one of red"], ["id unique"]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"checks": [nr.between("y", 0, 1)]}, "no column 'y'"),
        ({"checks": [nr.between("s", 0, 1)]}, "not a number"),
        ({"checks": [nr.between("x", 1, 0)]}, "above the upper"),
        ({"checks": [nr.matches("s", "(")]}, "not a regular expression"),
        ({"checks": [nr.one_of("s", [1])]}, "must be str"),
        ({"key": "s"}, "may not be missing"),
        ({"key": "nope"}, "no column 'nope'"),
        ({"time": "id"}, "is int64"),
        ({"path": "data/rows.xlsx"}, "no known format"),
        ({"name": "Rows"}, "can't be the name"),
        ({"schema": {"id": "integer"}}, "unknown type"),
        ({"schema": {"id": "int64", "at": nr.Timestamp("s", nullable=True)}}, "may be missing"),
    ],
)
def test_wrong_definitions_are_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        nr.Source(**{"name": "rows", "path": "a.csv", "schema": SCHEMA, **options})
    assert message in str(caught.value)


def test_a_missing_file_says_where_it_was_looked_for(workspace: Workspace) -> None:
    source = nr.Source("rows", "data/none.csv", schema=SCHEMA)
    with pytest.raises(DataError, match=r"there is no file .*data/none\.csv"):
        source.inputs(workspace.settings)


def test_the_definition_changes_with_all_that_matters() -> None:
    def definition(**options: Any) -> str:
        return json.dumps(nr.Source(**{"name": "rows", "path": "a.csv", "schema": SCHEMA, **options}).to_dict())

    variants: list[dict[str, Any]] = [
        {},
        {"path": "b.csv"},
        {"schema": {**SCHEMA, "x": "float64?"}},
        {"checks": [nr.one_of("s", list("abcdef"))]},
        {"checks": [nr.one_of("s", list("abcdeg"))]},
        {"checks": [nr.between("x", 0, 0.1234567)]},
        {"checks": [nr.between("x", 0, 0.1234568)]},
        {"checks": [nr.matches("s", "a")]},
        {"where": nr.col("id") > 1},
        {"where": nr.col("id") > 2},
        {"where": nr.col("id").is_in(list(range(100)))},
        {"where": nr.col("id").is_in([*range(99), 1000])},
        {"steps": [nr.Impute()]},
        {"steps": [nr.Impute(strategy="mean")]},
    ]
    assert len({definition(**options) for options in variants}) == len(variants)


CELL = st.sampled_from(["1", "2.5", "x", "", "10", "-1", "nan", '"q', 'a"b', "é", "\x00", "1e400", "true"]) | st.text(
    max_size=4
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(CELL, min_size=1, max_size=6), max_size=8))
def test_whatever_the_text_every_row_is_accounted_for_and_no_neighbour_lost(
    workspace: Workspace, rows: list[list[str]]
) -> None:
    dirty = "\n".join(",".join(row).replace("\n", " ").replace("\r", " ").replace('"', "'") for row in rows)
    data = f"id,x,s,at\n1,0.5,first,1\n{dirty}\n2,0.5,last,2\n".encode("utf-8", "surrogatepass")
    load(workspace, "a.csv", data, run_id=str(hash(dirty)))
    kept = workspace.table("rows").read()["s"].to_list()
    assert kept[0] == "first"
    assert kept[-1] == "last"


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b" ")), max_size=8))
def test_whatever_the_bytes_json_lines_lose_no_neighbour(workspace: Workspace, lines: list[bytes]) -> None:
    good = b'{"id": 1, "s": "%b", "at": 1}'
    data = b"\n".join([good % b"first", *lines, good % b"last"])
    load(workspace, "a.jsonl", data, run_id=str(hash(data)))
    kept = workspace.table("rows").read()["s"].to_list()
    assert kept[0] == "first"
    assert kept[-1] == "last"
