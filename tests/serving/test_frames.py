from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from late_model import SCHEMA, servable

import noria as nr
from noria.core import RequestError, Schema
from noria.serving.frames import read_csv, read_json
from noria.serving.tabular import fields_of

MODEL = servable(SCHEMA, nr.Impute(), nr.Encode())
FIELDS = fields_of(MODEL)
ROW = st.fixed_dictionaries(
    {
        "f": st.none() | st.floats(-1e6, 1e6),
        "short": st.floats(-1e6, 1e6, width=32),
        "n": st.none() | st.integers(-128, 127),
        "on": st.none() | st.booleans(),
        "s": st.none() | st.sampled_from(["a", "b", 'with "quotes", commas\nand lines']),
    }
)


@settings(max_examples=100, deadline=None)
@given(st.lists(ROW, min_size=1, max_size=6))
def test_all_forms_mean_the_same(rows: list[dict[str, Any]]) -> None:
    names = list(SCHEMA.names)
    values = [[row[name] for name in names] for row in rows]
    columns = {name: [row[name] for row in rows] for name in names}
    expected = MODEL.decode("predict", msgspec.json.encode({"instances": rows}))
    for body in (
        {"dataframe_split": {"columns": names, "index": list(range(len(rows))), "data": values}},
        {"dataframe_split": {"data": values}},
        {"dataframe_records": rows},
        {"instances": rows},
        {"instances": values},
        {"inputs": columns},
        {"inputs": values},
    ):
        assert MODEL.table(read_json(json.dumps(body).encode(), SCHEMA)) == expected
        with_nan = json.dumps(body).replace("null", "NaN").encode()
        assert MODEL.table(read_json(with_nan, SCHEMA)) == expected
    header = ",".join(names)
    lines = [",".join("" if v is None else f'"{str(v).replace(chr(34), chr(34) * 2)}"' for v in row) for row in values]
    assert MODEL.table(read_csv("\r\n".join([header, *lines]).encode(), FIELDS)) == expected


def test_names_may_be_left_out_and_whole_floats_are_integers() -> None:
    body = b'{"dataframe_records": [{"short": 1, "n": 2.0}, {"short": 2.5}]}'
    columns = read_json(body, SCHEMA)
    assert columns == {"short": [1, 2.5], "n": [2.0, None]}
    assert MODEL.table(columns) == MODEL.decode("predict", b'{"instances": [{"short": 1, "n": 2}, {"short": 2.5}]}')
    one = Schema.of({"x": "float64"})
    assert read_json(b'{"instances": [1, 2]}', one) == {"x": [1, 2]}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"NaN",
        b'{"instances": [[NaN]]',
        b'{"instances": [[Infinity]]}',
        b'{"instances": [NaN, Infinity]}',
        b'{"instances": "x"}',
        b'{"instances": [1, [2]]}',
        b'{"instances": [[1, 2]]}',
        b'{"dataframe_split": {"columns": ["f", "f"], "data": [[1, 2]]}}',
        b'{"dataframe_split": {"columns": ["f"], "data": [[1, 2]]}}',
        b'{"dataframe_split": {"columns": ["f"]}}',
        b'{"dataframe_records": [1]}',
        b'{"dataframe_records": [], "inputs": [[1]]}',
        b'{"inputs": {"short": {"x": 1}}}',
        b'{"inputs": NaN, "x": ' + b"[" * 100_000,
        b'{"instances": [{"short": 1e999}, {"f": NaN}]}',
        b'{"instances": [{"short": ' + b"9" * 5000 + b'}, {"f": NaN}]}',
    ],
)
def test_wrong_bodies_are_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        MODEL.table(read_json(body, SCHEMA))
    assert 400 <= caught.value.status < 500


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"short\n",
        b"short\n1,2\n",
        b"short,short\n1,2\n",
        b"short\nx\n",
        b"short\n1_0\n",
        b"short\ninf\n",
        b'short\n"1\n',
        b"\xff\n1\n",
        b"short,n\n1,1.5\n",
        b"short,on\n1,maybe\n",
        b"short\n" + b"1" * 200_000,
    ],
)
def test_wrong_csv_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError) as caught:
        MODEL.table(read_csv(body, FIELDS))
    assert 400 <= caught.value.status < 500


def test_rows_with_ever_new_names_are_no_bomb() -> None:
    body = msgspec.json.encode({"instances": [{f"x{n}": 1} for n in range(10_000)]})
    with pytest.raises(RequestError, match="different names"):
        read_json(body, SCHEMA)


def refusal(read: Any) -> int:
    try:
        MODEL.table(read())
    except RequestError as error:
        return error.status
    return 200


GOOD = json.dumps(
    {"dataframe_split": {"columns": list(SCHEMA.names), "data": [[1.5, 2.5, 3, True, "a"], [None, 1, -3, False, "b"]]}}
).encode()
CSV = b'f,short,n,on,s\n1.5,2.5,3,True,a\n,1,-3,false,"b, c"\n'
WORDS = st.sampled_from([b"NaN", b"1e999", b"null", b"{}", b"[[", b'"', b",", b"\n", b"\x00", b"instances", b"-0"])


@settings(max_examples=400, deadline=None)
@given(
    st.booleans(),
    st.lists(st.tuples(st.integers(0, len(GOOD)), st.integers(0, 5), WORDS | st.binary(max_size=3)), max_size=4),
)
def test_mutated_bodies_are_read_or_refused(is_csv: bool, changes: Any) -> None:
    body = CSV if is_csv else GOOD
    for at, gone, replacement in changes:
        body = body[:at] + replacement + body[at + gone :]
    read = (lambda: read_csv(body, FIELDS)) if is_csv else (lambda: read_json(body, SCHEMA))
    assert 200 <= refusal(read) < 500
