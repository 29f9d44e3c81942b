"""Fitting over blocks: as over the whole, whatever the cuts, the numbers of values and their size."""

from __future__ import annotations

import json
import math
import sys
from importlib.metadata import EntryPoint
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import ConfigError, DataError
from noria.pipelines import Step, apply_steps, fit_blocks, fit_steps, steps_from_dict, steps_to_dict
from noria.pipelines.blocks import Applied, FrameBlocks
from noria.pipelines.steps import categories as counting
from noria.pipelines.steps import deduplicate, statistics
from noria.pipelines.steps.categories import categories
from noria.pipelines.steps.statistics import moments, quantiles


def cut(frame: pl.DataFrame, *cuts: int) -> FrameBlocks:
    bounds = [0, *cuts, len(frame)]
    return FrameBlocks([frame[a:b] for a, b in pairwise(bounds)])


def rows_of(steps: list[Step], blocks: FrameBlocks) -> pl.DataFrame:
    return pl.concat(Applied(blocks, fit_blocks(steps, blocks)).map(lambda rows, _: rows))


RNG = np.random.default_rng(7)
MANY = pl.DataFrame(
    {
        "x": np.round(RNG.normal(size=3000) * 10.0 ** RNG.integers(-6, 6, 3000), 6),
        "n": RNG.integers(-(2**62), 2**62, 3000),
        "tied": RNG.integers(0, 3, 3000).astype(np.float64),
        "s": [f"c{v}" for v in RNG.zipf(1.3, 3000) % 500],
        "k": RNG.integers(0, 40, 3000),
    }
).with_columns(pl.when(pl.col("k") > 2).then(pl.col("x", "s")))


@pytest.mark.parametrize(
    "step",
    [
        nr.Impute(), nr.Impute(strategy="most_frequent"), nr.Normalize(method="minmax"), nr.Normalize(method="robust"),
        nr.Impute(indicator=True), nr.Encode(method="category", max_categories=9), nr.Clip(quantiles=(0.01, 0.99)), nr.Bucket(quantiles=7), nr.Encode(), nr.Encode(max_categories=5),
        nr.Encode(method="frequency", max_categories=9), nr.Encode(method="onehot", max_categories=3),
    ],
)  # fmt: skip
def test_many_blocks_give_exactly_the_state_of_one(step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit_blocks([step], cut(MANY))
    for name, value in ((statistics, "_COLLECT"), (counting, "_AT_ONCE"), (counting, "_IN_BLOCK")):
        monkeypatch.setattr(name, value, 7)
    assert fit_blocks([step], cut(MANY, 1, 1, 900, 2999))[0].to_dict() == whole[0].to_dict()


@pytest.mark.parametrize(
    "step",
    [nr.Impute(strategy="mean"), nr.Normalize(), nr.Encode(method="target", target="tied"), nr.Encode(["s"], method="target", target="x")],
)  # fmt: skip
def test_sums_over_many_blocks_differ_in_their_last_bits_only(step: Step) -> None:
    whole = json.dumps(fit_blocks([step], cut(MANY))[0].to_dict())
    parts = json.dumps(fit_blocks([step], cut(MANY, 1, 500, 2998))[0].to_dict())
    left, right = numbers(json.loads(whole)), numbers(json.loads(parts))
    np.testing.assert_allclose(left, right, rtol=1e-12, atol=1e-9)


def numbers(state: Any) -> list[float]:
    if isinstance(state, (dict, list)):
        return [n for part in (state.values() if isinstance(state, dict) else state) for n in numbers(part)]
    return [state] if isinstance(state, float) else []


FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.1, -0.0, 5e-324, sys.float_info.max])


@settings(max_examples=200, deadline=None)
@example([0.0, 1.7976931348623157e308, 1.7976931348623157e308, -8.98846567431158e307], 0)
@given(st.lists(st.none() | FLOATS, min_size=1, max_size=20), st.integers(0, 20))
def test_every_state_is_finite_and_every_value_stays_a_number(values: list[float | None], at: int) -> None:
    frame = pl.DataFrame({"x": values}, schema={"x": pl.Float64})
    blocks = cut(frame, min(at, len(frame)))
    for step in (
        nr.Normalize(), nr.Normalize(method="minmax"), nr.Normalize(method="robust"), nr.Impute(strategy="mean"),
        nr.Impute(), nr.Clip(quantiles=(0.2, 0.9)), nr.Bucket(quantiles=3),
    ):  # fmt: skip
        (fitted,) = fit_blocks([step], blocks)
        state = fitted.to_dict()
        assert all(map(math.isfinite, numbers(state))), state
        assert msgspec.json.decode(msgspec.json.encode(state)) == state
        assert not fitted.apply(frame)["x"].cast(pl.Float64).is_nan().any()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30), st.integers(-300, 300), st.integers(0, 30))
def test_moments_of_any_size_are_those_of_numpy(values: list[float], exponent: int, at: int) -> None:
    scaled = np.array(values) * 10.0**exponent
    found = moments(cut(pl.DataFrame({"x": scaled}), min(at, len(values))), ["x"])["x"]
    plain = scaled / 10.0**exponent
    assert found.mean == pytest.approx(np.mean(plain) * 10.0**exponent, rel=1e-9, abs=1e-12 * np.abs(scaled).max())
    if np.ptp(plain) > 1e-3 * max(1e-3, np.abs(plain).max()):
        assert found.deviation == pytest.approx(np.std(plain) * 10.0**exponent, rel=1e-9, abs=1e-300)


def test_equal_values_have_exactly_their_mean_and_no_deviation() -> None:
    frame = pl.DataFrame({"x": [0.1] * 1000})
    for blocks in (cut(frame), cut(frame, 3, 700)):
        found = moments(blocks, ["x"])["x"]
        assert (found.mean, found.deviation) == (0.1, 0.0)
        (fitted,) = fit_blocks([nr.Normalize()], blocks)
        assert fitted.apply(frame)["x"].to_list() == [0.0] * 1000


def test_nan_and_infinity_are_missing_to_a_fit() -> None:
    dirty = pl.DataFrame({"x": [1.0, math.nan, 2.0, math.inf, 4.0, -math.inf], "s": list("aabbcc")})
    clean = dirty.with_columns(pl.when(pl.col("x").is_finite()).then("x"))
    for step in (
        nr.Impute(["x"]), nr.Impute(["x"], strategy="mean"), nr.Normalize(), nr.Normalize(method="robust"),
        nr.Bucket(quantiles=2), nr.Encode(["s"], method="target", target="x"),
    ):  # fmt: skip
        assert fit_steps([step], dirty)[0][0].to_dict() == fit_steps([step], clean)[0][0].to_dict()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.none() | FLOATS, min_size=1, max_size=40),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.integers(1, 10),
)
def test_quantiles_are_order_statistics(values: list[float | None], shares: list[float], collect: int) -> None:
    frame = pl.DataFrame({"x": values, "y": values[::-1]}, schema={"x": pl.Float64, "y": pl.Float64})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "_COLLECT", collect)
        found = quantiles(cut(frame, 1, len(frame) // 2), {"x": shares, "y": shares})
    known = sorted(v + 0.0 for v in values if v is not None)
    assert found["x"] == found["y"]
    for share, value in zip(shares, found["x"], strict=bool(known)):
        place = share * (len(known) - 1)
        low, high = known[int(place)], known[min(int(place) + 1, len(known) - 1)]
        assert low <= value <= high
        assert place != int(place) or value == low


@settings(max_examples=100, deadline=None)
@given(st.lists(st.none() | st.sampled_from("abcdefgh"), max_size=40), st.integers(1, 9), st.integers(1, 5))
def test_the_most_frequent_are_exact_however_few_fit_in_memory(values: list[str | None], most: int, limit: int) -> None:
    frame = pl.DataFrame({"c": values}, schema={"c": pl.String})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_IN_BLOCK", limit)
        patch.setattr(counting, "_AT_ONCE", limit)
        found = categories(cut(frame, len(frame) // 3), ["c"], most)["c"]
    counts = {v: values.count(v) for v in values if v is not None}
    assert found.top.rows() == sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]
    assert (found.missing, found.rows) == (values.count(None), len(values))


def test_steps_follow_a_step_that_drops_rows() -> None:
    frame = pl.DataFrame({"k": ["a", "b", "a", "c"], "x": [1.0, None, 5.0, 3.0], "t": [3, 2, 1, 0]})
    steps = [
        nr.Deduplicate(["k"], keep="newest", time="t"),
        nr.ForwardFill(["x"]),
        nr.Impute(),
        nr.Normalize(["x"], method="minmax"),
    ]
    whole = rows_of(steps, cut(frame))
    assert whole["k"].to_list() == ["a", "b", "c"]
    for cuts in ((1,), (2, 3), (0, 4)):
        assert rows_of(steps, cut(frame, *cuts)).equals(whole)


@pytest.mark.parametrize("dtype", [pl.Int8, pl.Int64, pl.UInt32, pl.Float32, pl.Float64, pl.Date])
def test_any_time_tells_which_row_is_newest(dtype: Any) -> None:
    times = pl.Series("t", [5, 0, None, 3, 9, 9, None], pl.Int64).cast(dtype)
    frame = pl.DataFrame({"k": ["a", "a", "a", "b", "b", "b", "c"], "n": range(7)}).with_columns(times)
    for keep, rows in (("newest", [0, 5, 6]), ("oldest", [1, 3, 6])):
        for cuts in ((), (2, 5)):
            assert rows_of([nr.Deduplicate(["k"], keep=keep, time="t")], cut(frame, *cuts))["n"].to_list() == rows


def test_duplicates_are_found_range_by_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduplicate, "_RANGE_ROWS", 10)
    found = rows_of([nr.Deduplicate(["k"], keep="last")], cut(MANY.with_row_index("i"), 100, 2000))
    last = {k: i for i, k in enumerate(MANY["k"].to_list())}
    assert found["i"].to_list() == sorted(last.values())


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.none() | st.integers(0, 4), st.none() | st.integers(0, 9)), max_size=12),
    st.data(),
)  # fmt: skip
def test_forward_fill_by_time_is_as_a_loop_would_do_it(
    rows: list[tuple[str | None, int | None, int | None]], data: st.DataObject
) -> None:
    frame = pl.DataFrame(rows, schema={"k": pl.String, "t": pl.Int64, "v": pl.Int64}, orient="row")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    for by in (None, "k"):
        expected, last = [v for _, _, v in rows], dict[Any, int]()
        for n, (k, t, v) in sorted(enumerate(rows), key=lambda item: (item[1][1] or 0, item[0])):
            if t is not None:
                key = k if by else None
                expected[n] = last.get(key) if v is None else v
                last |= {} if v is None else {key: v}
        found = rows_of([nr.ForwardFill(["v"], by=by, time="t")], cut(frame, *cuts))
        assert found["v"].to_list() == expected


def test_what_comes_later_is_left_alone_by_steps_over_several_rows() -> None:
    frame = pl.DataFrame({"k": ["a", "a"], "x": [1.0, None]})
    fitted, _ = fit_steps([nr.Deduplicate(["k"]), nr.ForwardFill(["x"], by="k")], frame)
    again = steps_from_dict(msgspec.json.decode(msgspec.json.encode(steps_to_dict(fitted))))
    for steps in (fitted, again):
        assert apply_steps(steps, frame).equals(frame)


def test_a_hash_is_the_same_on_every_machine() -> None:
    fitted, made = fit_steps([nr.Encode(method="hash", buckets=1000)], pl.DataFrame({"s": ["a", "Straße", "", None]}))
    assert made["s"].to_list() == [928.0, 350.0, 756.0, -2.0]
    assert fitted[0].apply(pl.DataFrame({"s": ["a"] * 3}))["s"].to_list() == [928.0] * 3


def test_columns_is_a_list() -> None:
    with pytest.raises(ConfigError, match="is one name, not a list"):
        fit_steps([nr.Impute("x")], pl.DataFrame({"x": [1.0]}))


class FittedNothing:
    """A step of another package."""

    by_row = True

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame

    @staticmethod
    def from_dict(state: dict[str, Any]) -> FittedNothing:
        return FittedNothing()


def test_a_step_of_another_package_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = (EntryPoint("Nothing", f"{__name__}:FittedNothing", "noria.steps"),)
    monkeypatch.setattr("noria.pipelines.steps.entry_points", lambda group: [p for p in points if p.group == group])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    (found,) = steps_from_dict([{"step": "Nothing"}])
    assert type(found).__name__ == "FittedNothing"
    with pytest.raises(DataError, match="did you mean 'Nothing'"):
        steps_from_dict([{"step": "Nothin"}])
