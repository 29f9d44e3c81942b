from __future__ import annotations

import csv
import io

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from noria.core import Schema, SchemaError, Timestamp
from noria.pipelines import csv_records
from noria.pipelines.contract import judge
from noria.pipelines.csv_records import Header, read_body, read_header
from noria.pipelines.rows import BrokenRow, Rows

ABC = Schema.of({"a": "str?", "b": "str?", "c": "str?"})


def read_csv(data: bytes, schema: Schema, size: int = 1 << 20) -> Rows:
    """A whole file, read in pieces of a size."""
    header, stream = read_header(io.BytesIO(data), schema)
    frames, positions, broken, start = [read_body(b"", header, schema).frame], [], [], 0
    for piece, _ in csv_records.pieces(stream, size):
        rows = read_body(piece, header, schema)
        text = rows.text() if rows.text is not None else rows.frame
        frames.append(text)
        positions += [start + p for p in (rows.positions or range(1, len(rows.frame) + 1))]
        broken += [BrokenRow(start + row.position, row.reason, row.text) for row in rows.broken]
        start += rows.count
    return Rows(pl.concat(frames), positions, tuple(broken), header.extra(schema))


def read(body: bytes) -> Rows:
    return read_csv(b"a,b,c\n" + body, ABC)


def outcome(rows: Rows) -> tuple[list[tuple[object, ...]], list[int], list[int]]:
    positions = list(range(1, len(rows.frame) + 1)) if rows.positions is None else rows.positions
    values = [tuple(value or None for value in row) for row in rows.frame.rows()]
    return values, positions, [row.position for row in rows.broken]


@pytest.mark.parametrize(
    ("body", "values", "broken"),
    [
        (b"1,2,3\n4\n5,6,7\n", [("1", "2", "3"), ("5", "6", "7")], {2: "1 fields, and the header has 3"}),
        (b"1,2,3\n4,,\n\n,,\n", [("1", "2", "3"), ("4", None, None), (None, None, None)], {}),
        (b"1,2,3\r\n\r\n4,5,6,7\r\n8,,9\r\n", [("1", "2", "3"), ("8", None, "9")], {2: "4 fields, and the header has 3"}),
        (b'1,"x,3\n4,5,6\n7,8,9', [("4", "5", "6"), ("7", "8", "9")], {1: "a quote that is never closed"}),
        (b'1,"x\n4,5,"6\n7"\n8,8,8', [("4", "5", "6\n7"), ("8", "8", "8")], {1: "a quote that is never closed"}),
        (b'1,5" disk,3\n4,7",6\n', [("1", '5" disk', "3"), ("4", '7"', "6")], {}),
        (b'1,"a ""b"", c",3\n4,"",\n', [("1", 'a "b", c', "3"), ("4", None, None)], {}),
        (b"1,\xff,3\n4,\xc3\xa9,6\n", [("4", "é", "6")], {1: "not UTF-8 text"}),
        (b"", [], {}),
        (b"\n\n", [], {}),
        (b"1", [], {1: "1 fields"}),
    ],
)  # fmt: skip
def test_only_malformed_records_are_lost(body: bytes, values: list[object], broken: dict[int, str]) -> None:
    rows = read(body)
    assert outcome(rows)[0] == values
    assert [row.position for row in rows.broken] == list(broken)
    assert all(row.reason.startswith(reason) for row, reason in zip(rows.broken, broken.values(), strict=True))


def test_headers() -> None:
    assert read_csv(b'"a",x,x,"c\nd",b,c\n1,,,4,5,6', ABC).frame.rows() == [("1", "5", "6")]
    assert read_csv(b'"a",x,x,"c\nd",b,c\n1,,,4,5,6', ABC).extra == ("x#1", "x#2", "c\nd")
    assert read_csv(b"\xef\xbb\xbf\n\na,b,c\n1,2,3", ABC).frame.rows() == [("1", "2", "3")]
    assert read_csv(b"a,b,c,x,x,x#4,x#4#\n1,2,3,4,5,6,7", ABC).extra == ("x#3", "x#4##", "x#4", "x#4#")
    assert read_csv(b"a,b,c,x,x,x#3,x#3\n1,2,3,4,5,6,7", ABC).frame.rows() == [("1", "2", "3")]
    with pytest.raises(SchemaError, match="'b' twice"):
        read_csv(b"a,b,b,c\n1,2,3,4", ABC)
    with pytest.raises(SchemaError, match="separated by ';'"):
        read_csv(b"a;b;c\n1;2;3", ABC)
    for empty in (b"", b"\r\n\n", b"  "):
        with pytest.raises(SchemaError, match="empty"):
            read_csv(empty, ABC)


@pytest.mark.parametrize(
    ("body", "is_open"),
    [
        (b"1,2,3\n", False),
        (b'1,"2",3\n', False),
        (b'1,2,"x\n', True),
        (b'1,2,"x\n4,5,6\n7,8,9\n', True),
        (b'1,2,"x""\n', True),
        (b'1,2,"x""y"\n', False),
        (b'1,"2"x,3\n4,5,6\n', False),
        (b'1,"2,3\n4,"5",6\n', False),
        (b'1,"2"x,"\n4,5,6\n', False),
        (b'1,x"2,3\n4,5,6\n', False),
    ],
)
def test_a_quote_that_may_still_be_closed_is_seen(body: bytes, is_open: bool) -> None:
    for size in (3, 1 << 20):
        assert any(is_open for _, is_open in csv_records.pieces(io.BytesIO(body), size)) == is_open


PIECES = st.lists(
    st.sampled_from([b"a", b"bc", b",", b",", b'"', b'""', b"\n", b"\r\n", b"\r", b" ", b"\xff", b"\xc3\xa9"])
)


@settings(max_examples=200, deadline=None)
@example(b'a","\n"', 1)
@given(PIECES.map(b"".join) | st.binary(max_size=30), st.integers(1, 20))
def test_the_fast_and_the_careful_way_agree_however_the_file_is_cut(body: bytes, size: int) -> None:
    data = b"a,b,c\n" + body
    careful = csv_records._salvaged(body, ["a", "b", "c"])
    assert outcome(read_csv(data, ABC)) == outcome(careful)
    assert outcome(read_csv(data, ABC, size)) == outcome(careful)


@settings(max_examples=300, deadline=None)
@example(b'1,2,"x', b'y"\n')
@given(PIECES.map(b"".join), PIECES.map(b"".join))
def test_what_is_not_open_is_the_same_whatever_is_added(body: bytes, more: bytes) -> None:
    body += b"\n"
    if any(is_open for _, is_open in csv_records.pieces(io.BytesIO(body), 1 << 20)):
        return
    one, other = read(body), read(more)
    both = read(body + more)
    assert outcome(both)[0] == outcome(one)[0] + outcome(other)[0]
    assert outcome(both)[2] == outcome(one)[2] + [one.count + place for place in outcome(other)[2]]


@settings(max_examples=200, deadline=None)
@given(PIECES.map(b"".join) | st.binary(max_size=30))
def test_no_bytes_take_their_neighbours_with_them(body: bytes) -> None:
    rows = read(b"first,,1\n" + body + b"\nlast,,2\n")
    assert rows.frame.row(0) == ("first", None, "1")
    assert rows.frame.row(-1) == ("last", None, "2")


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_characters="\r", codec="utf-8"), max_size=5)] * 3), max_size=6)
)
def test_what_a_proper_writer_wrote_is_read_back(values: list[tuple[str, str, str]]) -> None:
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(values)
    rows = read(file.getvalue().encode())
    assert rows.frame.rows() == [tuple(value or None for value in row) for row in values]
    assert not rows.broken


@pytest.mark.parametrize("line", [b'1,"x\n', b'"a""\n', b'""x\n', b'1,"x"",2\n', b'x"y,",\n'])
def test_many_stray_quotes_take_no_quadratic_time(line: bytes) -> None:
    rows = read(line * 50_000)
    assert len(rows.frame) + len(rows.broken) > 10_000


NUMBER = st.sampled_from(["1", "-0", "+7", "007", "7.0", ".5", "5.", "1e3", "1E400", "1e-400", "NaN", "nan", "-nan",
    "inf", "-inf", "NA", "", "null", " 7", "7 ", "1_0", "0x1", "9" * 19, "9" * 40, "128", "16777217", "0.1", "x", "１"])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NUMBER | st.floats().map(repr) | st.integers().map(str), NUMBER), min_size=1, max_size=4))
def test_numbers_read_as_numbers_are_those_that_the_text_gives(rows: list[tuple[str, str]]) -> None:
    for dtype in ("int8?", "int64?", "float32?", "float64?", Timestamp("ms", nullable=True)):
        schema = Schema.of({"v": dtype, "w": "str?"})
        body = "\n".join(",".join(row) for row in rows).encode()
        fast = judge(read_body(body, Header(("v", "w")), schema), schema, ())
        text = csv_records._salvaged(body, ["v", "w"])
        slow = judge(text, schema, ())
        assert fast.good.equals(slow.good)
        assert fast.bad.equals(slow.bad)
        assert fast.by_rule == slow.by_rule
