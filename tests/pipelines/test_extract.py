from __future__ import annotations

import csv
import gzip
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import DataError, Schema, SchemaError
from noria.pipelines.contract import POSITION
from noria.pipelines.csv_records import UNCLOSED
from noria.pipelines.extract import Input, pieces
from noria.pipelines.files import kind_of
from noria.pipelines.rows import BrokenRow

SCHEMA = Schema.of({"a": "str?", "b": "str?"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


@dataclass(frozen=True)
class Extracted:
    frame: pl.DataFrame
    broken: list[BrokenRow]
    extra_columns: tuple[str, ...]

    @property
    def rows(self) -> int:
        return len(self.frame) + len(self.broken)


def extract(file: Path, schema: Schema, size: int = 1 << 20) -> Extracted:
    """All of a file's rows with their positions."""
    frames, broken, extra, start = [], [], (), 0
    for piece in pieces(Input(str(file), str(kind_of(file.name)), str(file), file.stat().st_size, ""), schema, size):
        found = piece.read()
        frame = found.text() if found.text is not None else found.frame
        places = [start + p for p in (found.positions or range(1, len(frame) + 1))]
        frames.append(frame.select(pl.Series(POSITION, places, pl.Int64), pl.all()))
        broken += [BrokenRow(start + row.position, row.reason, row.text) for row in found.broken]
        extra, start = found.extra, start + found.count
    empty = pl.DataFrame(schema={POSITION: pl.Int64, **dict.fromkeys(schema.names, pl.String)})
    return Extracted(pl.concat(frames) if frames else empty, broken, extra)


def read(folder: Path, data: bytes, name: str = "rows.csv", schema: Schema = SCHEMA) -> Extracted:
    (folder / name).write_bytes(data)
    return extract(folder / name, schema)


def rows(found: Extracted) -> list[tuple[Any, ...]]:
    return found.frame.rows()


@pytest.mark.parametrize(
    ("data", "good", "broken"),
    [
        (b"a,b\n1,2\n", [(1, "1", "2")], []),
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n3,4", [(1, "1", "2"), (2, "3", "4")], []),
        (b"a,b\r1,2\r3,4\r", [(1, "1", "2"), (2, "3", "4")], []),
        (b'a,b\n"x\ny","say ""hi"", you"\n3,4\n', [(1, "x\ny", 'say "hi", you'), (2, "3", "4")], []),
        (b"a,b\n1,2\n3\n4,5\n", [(1, "1", "2"), (3, "4", "5")], [(2, "1 fields, and the header has 2")]),
        (b"a,b\n1,2\n3,4,5\n6,7\n", [(1, "1", "2"), (3, "6", "7")], [(2, "3 fields, and the header has 2")]),
        (b"a,b\n\n1,2\n\n3,\n\n", [(1, "1", "2"), (2, "3", None)], []),
        (b"\n\na,b\n1,2\n", [(1, "1", "2")], []),
        (b"a,b\n1,\xff\n3,4\n", [(2, "3", "4")], [(1, "not UTF-8 text")]),
        (b"a,b\n1,x\x00y\n", [(1, "1", "x\x00y")], []),
        (b"a,b,\xff\n1,2,3\n", [(1, "1", "2")], []),
        (b'a,b\n1,2\n"3,4\n5,6\n7,8\n', [(1, "1", "2"), (3, "5", "6"), (4, "7", "8")], [(2, UNCLOSED)]),
        (b'a,b\n1,"2\n3,4\n', [(2, "3", "4")], [(1, UNCLOSED)]),
        (b'a,b\n1,2"\n3,4\n', [(1, "1", '2"'), (2, "3", "4")], []),
        (b"a,b,c,c\n1,2,3,4\n1,2\n", [(1, "1", "2")], [(2, "2 fields, and the header has 4")]),
        (b"a,b\n", [], []),
        (b"a,b", [], []),
    ],
)
def test_csv_line_by_line(
    folder: Path, data: bytes, good: list[tuple[Any, ...]], broken: list[tuple[int, str]]
) -> None:
    found = read(folder, data)
    assert rows(found) == good
    assert [(line.position, line.reason) for line in found.broken] == broken
    assert found.frame.columns == [POSITION, "a", "b"]
    assert found.rows == len(good) + len(broken)


def test_a_quote_left_open_costs_its_line_only_however_long_the_file(folder: Path) -> None:
    data = b'a,b\n"open,1\n' + b"1,2\n" * 100_000 + b'3,"open too\n' + b"5,6\n" * 3
    found = read(folder, data)
    assert len(found.frame) == 100_003
    assert [(line.position, line.reason, line.text) for line in found.broken] in (
        [(1, UNCLOSED, '"open,1'), (100_002, UNCLOSED, '3,"open too')],
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \r\n", "is empty"),
        (b"a\n1\n", "no column 'b'"),
        (b"1,2\n3,4\n", "no column 'a'"),
        (b"a,b,a\n1,2,3\n", "the column 'a' twice"),
        (b"a,b,a\n1,2,3\n4\n", "the column 'a' twice"),
    ],
)
def test_a_wrong_header_is_a_schema_error_that_names_the_file(folder: Path, data: bytes, message: str) -> None:
    with pytest.raises(SchemaError, match=message) as caught:
        read(folder, data)
    assert str(folder / "rows.csv") in caught.value.message


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.jsonl.gz", "rows.parquet"])
@pytest.mark.parametrize(
    "data", [b"plain text", b"", gzip.compress(b"a,b\n1,2\n" * 1000, mtime=0)[:-20], gzip.compress(b"x", mtime=0)[:5]]
)
def test_a_file_that_is_damaged_is_a_data_error(folder: Path, name: str, data: bytes) -> None:
    with pytest.raises((DataError, SchemaError)) as caught:
        read(folder, data, name)
    assert name in caught.value.message


def test_flipped_bits_in_a_compressed_file_are_found(folder: Path) -> None:
    packed = bytearray(gzip.compress(b"a,b\n" + b"".join(b"%d,x\n" % n for n in range(1000))))
    packed[len(packed) // 2] ^= 0xFF
    with pytest.raises(DataError, match="can't be read"):
        read(folder, bytes(packed), "rows.csv.gz")


@pytest.mark.parametrize("end", [".gz", ".zst"])
@pytest.mark.parametrize(
    ("head", "row"),
    [(b"a,b\n", b"1,2\n"), (b'a,b,"stray\n', b"1,2,3\n"), (b'\n\na,b,"two\nlines"\n', b"1,2,3\n")],
)
@pytest.mark.parametrize("size", [7, 1 << 20])
def test_compressed_csv(folder: Path, end: str, head: bytes, row: bytes, size: int) -> None:
    zstandard = pytest.importorskip("zstandard")
    pack = gzip.compress if end == ".gz" else zstandard.ZstdCompressor().compress
    (folder / f"rows.csv{end}").write_bytes(pack(head + row * 3))
    found = extract(folder / f"rows.csv{end}", SCHEMA, size)
    assert rows(found) == [(1, "1", "2"), (2, "1", "2"), (3, "1", "2")]


def test_a_file_is_read_up_to_the_size_that_it_had(folder: Path) -> None:
    for name, more in (("rows.csv", b"5,6\n"), ("rows.jsonl", b'{"a":"5"}\n')):
        data = b"a,b\n1,2\n3,4\n" if name == "rows.csv" else b'{"a":"1"}\n{"a":"3"}\n'
        (folder / name).write_bytes(data + more)
        source = Input(name, str(kind_of(name)), str(folder / name), len(data), "")
        for size in (3, 1 << 20):
            found = [piece.read().frame["a"].to_list() for piece in pieces(source, SCHEMA, size)]
            assert [str(value) for values in found for value in values] == ["1", "3"]


def test_utf_16_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match="UTF-16"):
        read(folder, "a,b\n1,2\n".encode("utf-16"))


def test_a_folder_in_place_of_a_file_is_a_data_error(folder: Path) -> None:
    (folder / "rows.csv").mkdir()
    with pytest.raises(DataError, match="can't be read"):
        extract(folder / "rows.csv", SCHEMA)


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.jsonl", "rows.jsonl.csv", "ROWS.CSV"])
def test_the_ending_says_the_format(folder: Path, name: str) -> None:
    json = name.endswith(".jsonl")
    assert rows(read(folder, b'{"a": 1, "b": 2}\n' if json else b"a,b\n1,2\n", name)) == [(1, "1", "2")]


def test_a_column_may_be_named_as_the_position(folder: Path) -> None:
    for name, data in (("r.csv", b"a,b,__position__\n1,2,x\n"), ("r.jsonl", b'{"a":1,"b":2,"__position__":"x"}')):
        found = read(folder, data, name)
        assert rows(found) == [(1, "1", "2")]
        assert found.extra_columns == (POSITION,)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b'{"a": "x"}', "x"),
        (b'{"a": null}', None),
        (b'{"a": true}', "true"),
        (b'{"a": 2.5}', "2.5"),
        (b'{"a": 1180591620717411303424}', "1180591620717411303424"),
        (b'{"a": [1, {"b": null}]}', '[1,{"b":null}]'),
        (b'{"a": 1, "a": 2}', "1"),
        (b"{}\r", None),
    ],
)
def test_json_values_as_text(folder: Path, line: bytes, value: str | None) -> None:
    assert rows(read(folder, line + b"\n", "rows.jsonl")) == [(1, value, None)]


@pytest.mark.parametrize(
    "line",
    [
        *(b"7", b'"x"', b"[1]", b"null", b"true", b"{", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b"\xff"),
        *(b'{"a": 1} {"a": 2}', b"\x00", pytest.param(b'{"a": ' + b"[" * 99_999 + b"]" * 99_999 + b"}", id="deep")),
    ],
)
def test_a_line_that_is_no_json_object_is_broken_and_its_neighbours_are_not(folder: Path, line: bytes) -> None:
    found = read(folder, b'{"a": 1}\n' + line + b'\n\n{"a": 3}', "rows.ndjson")
    assert rows(found) == [(1, "1", None), (3, "3", None)]
    assert [line.position for line in found.broken] == [2]


def test_parquet_text_that_is_no_text(folder: Path) -> None:
    pl.DataFrame({"a": [b"x", b"\xff", None], "b": [[1], [2], None], "c": [1, 2, 3]}).write_parquet(
        folder / "r.parquet"
    )
    found = extract(folder / "r.parquet", SCHEMA)
    assert rows(found) == [(1, "x", "[1]"), (3, None, None)]
    assert [(line.position, line.reason) for line in found.broken] == [(2, "not UTF-8 text")]
    assert found.extra_columns == ("c",)
    with pytest.raises(SchemaError, match="no column 'd'"):
        extract(folder / "r.parquet", Schema.of({"d": "str"}))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.text(max_size=4), min_size=2, max_size=2), max_size=6))
def test_what_a_csv_writer_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[list[str]]
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *table])
    folder = tmp_path_factory.getbasetemp()
    found = read(folder, text.getvalue().encode(), "property.csv")
    kept = [tuple(value or None for value in row[1:]) for row in rows(found)]
    assert kept == [tuple(value or None for value in row) for row in table]
    assert not found.broken
