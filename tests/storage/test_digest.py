from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import DataError
from noria.storage import digest as module
from noria.storage.digest import digest, digest_columns

FRAME = pl.DataFrame(
    {
        "i": pl.Series([1, None, 3, 4, 5, 6, 7, 8, 9], dtype=pl.Int32),
        "x": [0.5, None, float("nan"), -0.0, 1e300, float("inf"), 0.0, 1.0, 2.0],
        "s": ["a", None, "", "ä\n", "bb", "c", "d", "e", "f"],
        "b": [True, False, None] * 3,
        "at": [datetime(2024, 1, 1, 0, 0, 0, 7, UTC), None, *[datetime(1950, 1, 1, tzinfo=UTC)] * 7],
        "day": [date(1969, 1, 1), None, *[date(2024, 2, 29)] * 7],
        "many": [[1, None], [], None, [3], [4], [5], [6], [7], [8, 9]],
        "texts": [["a"], None, [], ["b", "c"], [""], [None], ["d"], ["e"], ["f"]],
        "raw": [b"\0", None, b"", b"ab", b"c", b"d", b"e", b"f", b"g"],
        "pair": [{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}, *[{"a": 2, "b": None}] * 6],
        "kind": pl.Series([*"abcabcab", None], dtype=pl.Categorical),
        "none": [None] * 9,
    }
)


def test_the_digest_is_of_what_the_module_says() -> None:
    column = pl.Series("n", [1, None, 3], dtype=pl.Int16)
    bits, values = bytes([0b10100000]), np.array([1, 3], "<i2").tobytes()
    expected = hashlib.sha256(b"Int16\x003\x00" + bits + values).digest()
    assert digest_columns(column.to_frame()) == {"n": expected.hex()}
    assert digest(column.to_frame()) == hashlib.sha256((1).to_bytes(8, "little") + b"n" + expected).hexdigest()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=4), st.integers(1, 3))
def test_it_does_not_depend_on_chunks_nor_on_how_much_is_copied_at_once(cuts: list[int], eights: int) -> None:
    places = [0, *sorted(cuts), len(FRAME)]
    parts = [FRAME.slice(a, b - a) for a, b in pairwise(places)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_ROWS", 8 * eights)
        assert digest(pl.concat(parts, rechunk=False)) == digest(FRAME)


def test_what_lies_under_missing_values_does_not_count() -> None:
    hidden = pl.DataFrame({"n": [1, 2, 3]}).select(pl.when(pl.col("n") != 2).then("n"))
    assert digest(hidden) == digest(pl.DataFrame({"n": [1, None, 3]}))
    negative = -np.array([np.nan])
    assert digest(pl.DataFrame({"x": negative})) == digest(pl.DataFrame({"x": [float("nan")]}))


@pytest.mark.parametrize("name", [name for name in FRAME.columns if name != "none"])
def test_every_value_name_type_and_place_counts(name: str) -> None:
    column = FRAME.select(name)
    others = [
        column.reverse(),
        column.head(8),
        column.rename({name: "other"}),
        column.select(pl.when(pl.int_range(pl.len()) != 0).then(name)),
        pl.concat([column.head(8), column.head(1)]),
    ]
    assert len({digest(frame) for frame in (column, *others)}) == 6


def test_near_misses_are_told_apart() -> None:
    frames = [
        pl.DataFrame({"x": [0.0]}),
        pl.DataFrame({"x": [-0.0]}),
        pl.DataFrame({"x": pl.Series([0.0], dtype=pl.Float32)}),
        pl.DataFrame({"x": [None]}, schema={"x": pl.Float64}),
        pl.DataFrame({"x": ["ab", "c"]}),
        pl.DataFrame({"x": ["a", "bc"]}),
        pl.DataFrame({"x": [["a", "b"], ["c"]]}),
        pl.DataFrame({"x": [["a"], ["b", "c"]]}),
        pl.DataFrame({"x": [["a"], []]}),
        pl.DataFrame({"x": [["a"], None]}),
        pl.DataFrame({"x": [0.0], "y": [0.0]}),
        pl.DataFrame({"y": [0.0], "x": [0.0]}),
        pl.DataFrame(),
    ]
    assert len({digest(frame) for frame in frames}) == len(frames)


def test_objects_have_no_digest() -> None:
    with pytest.raises(DataError, match="column 'x' is Object"):
        digest(pl.DataFrame({"x": pl.Series([object()], dtype=pl.Object)}))
