from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import Schema, SchemaError
from noria.pipelines import json_lines
from noria.pipelines.json_lines import read_json_lines

SCHEMA = Schema.of({"id": "int64?", "s": "str?"})


def values(data: bytes) -> list[tuple[object, ...]]:
    return read_json_lines(data, SCHEMA).frame.rows()


def test_values_become_text() -> None:
    data = b'{"id": 7, "s": "a"}\r\n\r\n{"s": null, "id": "8"}\n{"id": 2.50, "s": true}\n{}\n{"s": "\\ud83d\\ude00 \\u00e9"}'
    assert values(data) == [("7", "a"), ("8", None), ("2.5", "true"), (None, None), (None, "😀 é")]


@pytest.mark.parametrize("value", [{'k\n"': 'x\t"\\ é \u0001'}, [1, None, "\n"], {}, []])
def test_nested_values_become_proper_json(value: object) -> None:
    ((_, text),) = values(json.dumps({"s": value}).encode())
    assert json.loads(text) == value
    assert values(b'{"s": "[not json"}') == [(None, "[not json")]


@pytest.mark.parametrize(
    "line",
    [b"{", b"[1]", b"7", b"null", b'{"id": 1,}', b'{"id": NaN}', b'{"id": 1} x', b'{"s": "\xff"}', b'{"s": "\\ud800"}',
     b'{"id": 1e400}', b'{"s": "a\tb"}', b"\x00", b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"{'id': 1}"],
)  # fmt: skip
def test_a_line_that_is_no_object_is_lost_alone(line: bytes) -> None:
    rows = read_json_lines(b'{"id": 1}\n\n' + line + b'\n{"id": 2}\n', SCHEMA)
    assert rows.frame["id"].to_list() == ["1", "2"]
    assert rows.positions == [1, 3]
    assert [(row.position, row.rule) for row in rows.broken] == [(2, "not a JSON object")]


def test_a_member_that_no_row_has_stops_the_run_if_it_may_not_be_missing() -> None:
    rows = read_json_lines(b'{"id": 1, "more": 2}', SCHEMA)
    assert (rows.frame.rows(), rows.extra) == ([("1", None)], ("more",))
    with pytest.raises(SchemaError, match="no row with 's'"):
        read_json_lines(b'{"id": 1}', Schema.of({"id": "int64", "s": "str"}))
    assert len(read_json_lines(b'{"id": 1}', Schema.of({"id": "int64", "s": "str"}), first=False).frame) == 1
    assert len(read_json_lines(b"", Schema.of({"id": "int64"})).frame) == 0


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip
LINE = st.dictionaries(st.sampled_from(["id", "s", "x"]), JSON).map(json.dumps).map(str.encode) | st.binary(max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(LINE.map(lambda line: line.replace(b"\n", b" ")), max_size=5))
def test_the_fast_and_the_careful_way_agree_and_no_neighbour_is_lost(lines: list[bytes]) -> None:
    data = b"\n".join([b'{"id": 1}', *lines, b'{"id": 2}'])
    rows = read_json_lines(data, SCHEMA)
    present = [line.strip(b" \t\r") for line in data.split(b"\n")]
    careful = json_lines._salvaged(list(enumerate(filter(None, present), 1)), SCHEMA)
    assert rows.frame.equals(careful.frame)
    assert rows.broken == careful.broken
    assert (rows.frame["id"][0], rows.frame["id"][-1]) == ("1", "2")
    assert len(rows.frame) + len(rows.broken) == len(list(filter(None, present)))
