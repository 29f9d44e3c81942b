"""Rows read straight from JSON are those that the usual decoder reads, to the bit; whatever is odd is left to it."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from noria.core import RequestError, Schema
from noria.core.bodies import decode
from noria.training.inputs import ModelInputs
from noria.training.row_json import RowReader, compiled
from noria.training.servable import _row_type, _rows_of

SPECS = {"a": "float64", "b": "float32?", "odd näme}": "int16", "d": "int64?"}
SCHEMA = Schema.of(SPECS)
compiled()
READER = RowReader(SCHEMA)
INPUTS = ModelInputs(SCHEMA, ())
USUAL = msgspec.json.Decoder(msgspec.defstruct("Request", [("instances", _rows_of(_row_type("Row", SPECS)))]))


def usual(body: bytes) -> Any:
    """The matrix that the usual decoder makes of a body; None where it refuses it."""
    try:
        rows = decode(USUAL, body).instances
    except RequestError:
        return None
    return None if rows is None else INPUTS.matrix_of_rows([msgspec.structs.astuple(row) for row in rows])


def agrees(body: bytes) -> bool:
    """Whether a body was read, and then as usual."""
    mine = READER.read(body)
    if mine is None:
        return False
    theirs = usual(body)
    assert theirs is not None, body
    assert mine.tobytes() == theirs.tobytes(), body
    return True


def body_of(*rows: dict[str, Any], **options: Any) -> bytes:
    return json.dumps({"instances": rows}, **options).encode()


FINITE = st.floats(allow_nan=False, allow_infinity=False)
ROW = st.fixed_dictionaries(
    {
        "a": FINITE | st.integers(-(10**20), 10**20),
        "b": st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
        "odd näme}": st.integers(-(2**15), 2**15 - 1),
        "d": st.none() | st.integers(-(2**63), 2**63 - 1),
    }
)


@given(st.lists(ROW, min_size=1, max_size=4), st.permutations(list(SPECS)), st.booleans())
def test_rows_are_read_as_usual(rows: list[dict[str, Any]], order: list[str], wide: bool) -> None:
    rows = [{name: row[name] for name in order} for row in rows]
    agrees(body_of(*rows, indent=1 if wide else None))


@given(FINITE)
@example(5e-324)
@example(2.2250738585072014e-308)
@example(1.7976931348623157e308)
@example(9007199254740993.0)
@example(-0.0)
def test_every_number(value: float) -> None:
    agrees(f'{{"instances":[{{"a":{value!r},"b":1,"odd n\\u00e4me}}":1,"d":1}}]}}'.encode())
    agrees(body_of({"a": value, "b": 1, "odd näme}": 1, "d": 1}, ensure_ascii=False))


@given(st.from_regex(r"-?[0-9]{0,22}(\.[0-9]{0,22})?([eE][+-]?[0-9]{0,4})?", fullmatch=True))
@example("1e23")
@example("8.5e22")
@example("9007199254740993")
@example("1.00000000000000011102230246251565")
@example("4503599627370496.5")
@example("00")
@example("-0")
@example("1e-324")
@example("1e400")
def test_every_text_of_a_number(text: str) -> None:
    for name in ("a", "b", "d"):
        cells = {"a": "1", "b": "2", "odd näme}": "3", "d": "4", name: text}
        inner = ",".join(f"{json.dumps(key, ensure_ascii=False)}:{cell}" for key, cell in cells.items())
        agrees(f'{{"instances":[{{{inner}}}]}}'.encode())


def test_the_usual_is_taken() -> None:
    random = np.random.default_rng(0)
    schema = Schema.of({f"f{n}": "float64" for n in range(50)})
    x = random.normal(size=(500, 50)) * 10.0 ** random.integers(-200, 200, (500, 50))
    rows = [dict(zip(schema.names, row.tolist(), strict=True)) for row in x]
    read = RowReader(schema).read(body_of(*rows))
    assert read is not None
    assert read.tobytes() == x.tobytes()
    assert len(compiled().read.signatures) == 1  # else the first request would wait for another compilation


GOOD = {"a": 1.5, "b": None, "odd näme}": 3, "d": 4}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b'{"instances": []}',
        b'{"instances": null}',
        body_of(GOOD)[:-1],
        body_of(GOOD) + b"x",
        body_of(GOOD)[1:],
        body_of(GOOD).replace(b"instances", b"entities"),
        b'{"x": 1, "instances": [' + body_of(GOOD)[15:],
        body_of(GOOD, {"a": 1.5}),
        body_of(GOOD, dict(reversed(GOOD.items()))),
        body_of({**GOOD, "e": 1}),
        body_of({**GOOD, "a": "1"}),
        body_of({**GOOD, "a": None}),
        body_of({**GOOD, "a": True}),
        body_of({**GOOD, "b": 1e39}),
        body_of({**GOOD, "odd näme}": 40000}),
        body_of({**GOOD, "odd näme}": 1.0}),
        body_of({**GOOD, "a": float("nan")}),
        body_of(GOOD).replace(b"null", b"nul"),
        body_of(GOOD).replace(b"1.5", b"1."),
        body_of(GOOD).replace(b"1.5", b".5"),
        body_of(GOOD).replace(b"1.5", b"+1"),
        body_of(GOOD).replace(b"1.5", b"0x1"),
        body_of(GOOD).replace(b"1.5", b"1,"),
        body_of(GOOD).replace(b"1.5", b"\xa0 1"),
    ],
)
def test_what_is_odd_is_left_to_the_usual_decoder(body: bytes) -> None:
    assert not agrees(body)


def test_a_first_long_body_doesnt_wait_for_the_compiler() -> None:
    code = """
import time
from noria.core import Schema
from noria.training import row_json
rows = row_json.RowReader(Schema.of({"a": "float64"}))
body = b'{"instances":[{"a":1.5}]}'
print(rows.read(body))
while not row_json._READY.wait(0.1):
    assert rows.read(body) is None
print(rows.read(body))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:2] == ["None", "[[1.5]]"], done.stdout + done.stderr
