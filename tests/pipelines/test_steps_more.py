"""Steps beyond the first four, chains of random steps, and the row path."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import ConfigError
from noria.pipelines import Step, fit_blocks, fit_steps, row_function
from noria.pipelines.blocks import Applied, FrameBlocks
from noria.pipelines.steps import statistics
from noria.pipelines.steps.statistics import quantiles
from noria.testing import StepConformance
from noria.testing.step import assert_rows_equal_the_batch


class TestFilter(StepConformance):
    drops_rows = True

    def step(self) -> Step:
        return nr.Filter(nr.col("number") > 0)


class TestFrequency(StepConformance):
    def step(self) -> Step:
        return nr.Encode(method="frequency")


class TestHash(StepConformance):
    def step(self) -> Step:
        return nr.Encode(method="hash", buckets=7)


class TestTarget(StepConformance):
    sums = True

    def step(self) -> Step:
        return nr.Encode(method="target", target="number")

    def test_columns_and_types_do_not_depend_on_the_rows(self) -> None:
        fitted, _ = fit_steps([self.step()], pl.DataFrame({"text": ["a", None], "number": [1.0, 2.0]}))
        assert fitted[0].apply(pl.DataFrame({"text": ["z"], "number": [None]})).schema["text"] == pl.Float64


class TestRobust(StepConformance):
    def step(self) -> Step:
        return nr.Normalize(["number", "whole", "constant"], method="robust")


class TestLog(StepConformance):
    def step(self) -> Step:
        return nr.Normalize(["number", "whole"], method="log")


class TestClip(StepConformance):
    def step(self) -> Step:
        return nr.Clip(["number", "whole"], low=-2.5, high=100)


class TestClipByQuantiles(StepConformance):
    def step(self) -> Step:
        return nr.Clip(quantiles=(0.1, 0.9))


class TestBucket(StepConformance):
    def step(self) -> Step:
        return nr.Bucket(["number", "whole"], edges=[-1, 0, 3])


class TestBucketByQuantiles(StepConformance):
    def step(self) -> Step:
        return nr.Bucket(quantiles=3)


class TestCast(StepConformance):
    def step(self) -> Step:
        return nr.Cast({"number": "int8", "whole": "float64", "on": "int64", "constant": "str", "text": "float32"})


class TestRename(StepConformance):
    def step(self) -> Step:
        return nr.Rename({"number": "text", "text": "number"})


class TestDrop(StepConformance):
    def step(self) -> Step:
        return nr.Drop(["number", "on"])


class TestDerive(StepConformance):
    def step(self) -> Step:
        number, on = nr.col("number"), nr.col("on")
        return nr.Derive(
            {
                "twice": number * 2 + nr.col("constant"),
                "number": nr.when(on & (number > 1)).then(number).otherwise(0.5),
                "known": number.is_not_null() | ~on,
                "upper": nr.col("text").str.to_uppercase(),
                "filled": nr.col("text").fill_null("none"),
                "byte": nr.col("whole") * 2,
            }
        )


class TestDeduplicate(StepConformance):
    drops_rows = True

    def step(self) -> Step:
        return nr.Deduplicate(["text"])


class TestForwardFill(StepConformance):
    def step(self) -> Step:
        return nr.ForwardFill(["number", "text"])


class TestForwardFillByKey(StepConformance):
    def step(self) -> Step:
        return nr.ForwardFill(["number", "on"], by="text")


def fitted_to(steps: list[Step], frame: pl.DataFrame, *cuts: int) -> pl.DataFrame:
    bounds = [0, *cuts, len(frame)]
    blocks = FrameBlocks([frame[a:b] for a, b in pairwise(bounds)])
    return pl.concat(Applied(blocks, fit_blocks(steps, blocks)).map(lambda rows, _: rows))


def test_of_repeated_rows_one_is_kept() -> None:
    frame = pl.DataFrame({"k": ["a", "b", "a", "a", None, None], "t": [5, 1, 9, 9, 1, 1], "n": range(6)})
    wanted = {"first": [0, 1], "last": [1, 3], "newest": [1, 3], "oldest": [0, 1]}
    for keep, rows in wanted.items():
        step = nr.Deduplicate(["k"], keep=keep, time="t" if keep in ("newest", "oldest") else None)
        for cuts in ((), (1, 3), (3,)):
            assert fitted_to([step], frame, *cuts)["n"].to_list() == sorted([*rows, 4, 5])


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 4)), max_size=12),
    st.sampled_from(["first", "last", "newest", "oldest"]),
    st.integers(0, 12),
)
def test_deduplicate_is_as_a_loop_would_do_it(rows: list[tuple[int, int | None]], keep: str, cut: int) -> None:
    frame = pl.DataFrame(rows, schema={"k": pl.Int64, "t": pl.Int64}, orient="row").with_row_index("n")
    best: dict[int, int] = {}
    for n, (k, t) in enumerate(rows):
        old = rows[best[k]][1] if k in best else None
        better = {
            "first": k not in best,
            "last": True,
            "newest": k not in best or old is None or (t is not None and t >= old),
            "oldest": k not in best or old is None or (t is not None and t <= old),
        }[keep]
        best[k] = n if better else best[k]
    step = nr.Deduplicate(["k"], keep=keep, time="t" if keep in ("newest", "oldest") else None)
    assert fitted_to([step], frame, min(cut, len(frame)))["n"].to_list() == sorted(best.values())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", None]), st.none() | st.integers(0, 9)), max_size=12), st.data())
def test_forward_fill_is_as_a_loop_would_do_it(rows: list[tuple[str | None, int | None]], data: st.DataObject) -> None:
    frame = pl.DataFrame(rows, schema={"k": pl.String, "v": pl.Int64}, orient="row")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=3)))
    for by in (None, "k"):
        last: dict[Any, int] = {}
        expected = []
        for k, v in rows:
            key = k if by else None
            last = last if v is None else {**last, key: v}
            expected.append(last.get(key))
        assert fitted_to([nr.ForwardFill(["v"], by=by)], frame, *cuts)["v"].to_list() == expected


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=30),
    st.lists(st.floats(0, 1), min_size=1, max_size=3),
    st.integers(0, 30),
)
def test_quantiles_are_exact(values: list[float | None], shares: list[float], cut: int) -> None:
    frame = pl.DataFrame({"x": values}, schema={"x": pl.Float64})
    blocks = FrameBlocks([frame[: min(cut, len(frame))], frame[min(cut, len(frame)) :]])
    limit, statistics._COLLECT = statistics._COLLECT, 2
    try:
        found = quantiles(blocks, {"x": shares})["x"]
    finally:
        statistics._COLLECT = limit
    known = sorted(v + 0.0 for v in values if v is not None)
    assume(not known or known[-1] - known[0] < 1e300)
    for share, value in zip(shares, found, strict=bool(known)):
        place = share * (len(known) - 1)
        low, high = known[int(place)], known[min(int(place) + 1, len(known) - 1)]
        assert low <= value <= high
        np.testing.assert_allclose(value, np.quantile(known, share), rtol=1e-9, atol=1e-300)


def test_target_means_leave_out_the_rows_own_fold() -> None:
    rng = np.random.default_rng(0)
    noise = pl.DataFrame({"c": [f"id{n}" for n in range(2000)], "y": rng.normal(size=2000)})
    fitted, made = fit_steps([nr.Encode(method="target", target="y", smoothing=0, max_categories=5000)], noise)
    assert abs(np.corrcoef(made["c"].to_numpy(), noise["y"].to_numpy())[0, 1]) < 0.2  # each category is its own row
    again = fitted[0].apply(noise)
    assert np.corrcoef(again["c"].to_numpy(), noise["y"].to_numpy())[0, 1] > 0.99
    grouped = pl.DataFrame({"c": ["a", "b", None] * 100, "y": [1.0, 3.0, 8.0] * 100})
    state = fit_steps([nr.Encode(method="target", target="y", smoothing=0)], grouped)[0][0].to_dict()
    assert state["numbers"] == {"c": {"a": 1.0, "b": 3.0}}
    assert (state["unseen"], state["missing"]) == ({"c": 4.0}, {"c": 8.0})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nr.Clip(), "needs bounds"),
        (lambda: nr.Clip(low=2, high=1), "above the upper"),
        (lambda: nr.Bucket(edges=[2, 1]), "must ascend"),
        (lambda: nr.Bucket(), "needs edges"),
        (lambda: nr.Deduplicate(["a"], keep="best"), "keep='best'"),
        (lambda: nr.Deduplicate(["a"], keep="newest"), "time="),
        (lambda: nr.Encode(method="target"), "target= goes with"),
        (lambda: nr.Derive({"x": 1}), "needs expressions"),
        (lambda: fit_steps([nr.Derive({"x": nr.col("nmber") * 2})], FRAME), "did you mean 'number'"),
        (lambda: fit_steps([nr.Derive({"x": nr.col("text") * 2})], FRAME), "can't be computed"),
        (lambda: fit_steps([nr.Filter(nr.col("number"))], FRAME), "neither true nor false"),
        (lambda: fit_steps([nr.Rename({"number": "text"})], FRAME), "two columns would be named 'text'"),
        (lambda: fit_steps([nr.Drop(["number", "text"])], FRAME), "no column would be left"),
        (lambda: fit_steps([nr.Cast({"number": "date"})], FRAME), "can't become date"),
        (
            lambda: fit_steps([nr.Encode(["text"], method="onehot")], FRAME.rename({"number": "text=a"})),
            "two columns would be named 'text=a'",
        ),
        (lambda: row_function(fit_steps([nr.Deduplicate(["text"])], FRAME)[0], FRAME.schema), "looks at several rows"),
    ],
)
def test_mistakes_say_what_is_allowed(make: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert message in str(caught.value)


FRAME = pl.DataFrame({"number": [1.0, 2.0], "text": ["a", "b"]})
TYPES: dict[str, tuple[pl.DataType, st.SearchStrategy[Any]]] = {
    "i8": (pl.Int8(), st.integers(-128, 127)),
    "i64": (pl.Int64(), st.integers(-(2**63), 2**63 - 1)),
    "f32": (pl.Float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    "f64": (pl.Float64(), st.floats(allow_nan=False, allow_infinity=False)),
    "tame": (pl.Float64(), st.floats(-1e6, 1e6)),
    "s": (pl.String(), st.text(max_size=3) | st.sampled_from(["a", "b", "c"])),
    "b": (pl.Boolean(), st.booleans()),
    "d": (pl.Date(), st.dates(date(1900, 1, 1), date(2100, 1, 1))),
    "t": (
        pl.Datetime("us", "UTC"),
        st.integers(-(2**50), 2**52).map(lambda us: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=us)),
    ),
}
SCHEMA = pl.Schema({name: dtype for name, (dtype, _) in TYPES.items()})


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    size = draw(st.integers(1, 6))
    return pl.DataFrame(
        {name: draw(st.lists(st.none() | values, min_size=size, max_size=size)) for name, (_, values) in TYPES.items()},
        schema=SCHEMA,
    )


tame, f64, i64, b, s = nr.col("tame"), nr.col("f64"), nr.col("i64"), nr.col("b"), nr.col("s")
EXPRESSIONS = [
    tame * 2 + 1, tame - f64 * 0.1, i64 + 1, i64 * 3, i64 * 0.5, f64 * f64, (tame > 1) & b, (f64 >= tame) | ~b,
    tame.is_null(), nr.col("s").is_not_null(), tame.fill_null(3), i64.fill_null(0), s.fill_null("x"), s == "a",
    nr.when(tame > 0).then(tame).otherwise(-1.5), nr.when(b).then(i64).otherwise(0), nr.when(b).then(s).otherwise("no"),
    nr.col("f32") * 2, nr.col("i8") + 1, tame / 3, tame.abs().log1p(), s.str.len_chars(), nr.col("t").dt.hour(),
    tame * 0, tame + 0, 0 - tame, f64 * -1, i64 > 2.5, i64 == 3, f64 != tame, nr.lit(1.5) * tame, b & None, -tame, i64 - i64, (tame > 0).is_not_null(),
]  # fmt: skip
STEPS = st.one_of(
    st.sampled_from(
        [
            nr.Impute(["f32", "tame", "s", "i8"]), nr.Impute(["tame"], strategy="mean"), nr.Impute(["i8", "s"], indicator=True), nr.Impute(strategy="most_frequent"),
            nr.Normalize(["tame", "f32", "i8"]), nr.Normalize(["tame"], method="minmax"), nr.Normalize(["tame"], method="robust"),
            nr.Normalize(["tame", "i8"], method="log"), nr.Clip(["tame", "i8", "f32"], low=-3.3, high=50),
            nr.Clip(["i64", "f64"], low=0), nr.Bucket(["tame", "i64", "f32"], edges=[-1, 0, 2.5]), nr.Bucket(["tame"], quantiles=3),
            nr.Cast({"i8": "float64", "i64": "float64", "b": "int64", "s": "int64"}), nr.Cast({"tame": "int32", "d": "str", "f32": "float64"}),
            nr.DropMissing(["tame"]), nr.DropMissing(), nr.Rename({"tame": "f64", "f64": "tame"}),
        ]
    ),
    st.sampled_from(EXPRESSIONS).map(lambda e: nr.Derive({"new": e})),
    st.sampled_from([tame > 0, b, b | (i64 > 5), tame.is_null() & (s != "a")]).map(nr.Filter),
)  # fmt: skip
LAST = st.sampled_from([nr.Encode(["s"]), nr.Encode(["s"], method="onehot"), nr.Encode(["s"], method="frequency"), nr.Encode(["s"], method="hash"), nr.Drop(["s"])])  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=4), st.none() | LAST, frames(), frames())
def test_a_chain_does_to_a_row_what_it_does_to_the_batch_to_the_bit(
    steps: list[Step], last: Step | None, rows: pl.DataFrame, more: pl.DataFrame
) -> None:
    try:
        fitted, _ = fit_steps([*steps, *([last] if last is not None else [])], rows)
    except ConfigError:  # a column has another type by then
        assume(False)
    for frame in (rows, more):
        assert_rows_equal_the_batch(fitted, frame)


def test_a_row_of_twenty_columns_takes_microseconds() -> None:
    columns: dict[str, Any] = {f"x{n}": [1.0, None, 2.5, 4.0] for n in range(16)}
    columns |= {f"c{n}": ["a", "b", None, "a"] for n in range(4)}
    frame = pl.DataFrame(columns)
    fitted, _ = fit_steps([nr.Impute(), nr.Encode(), nr.Normalize([f"x{n}" for n in range(16)])], frame)
    transform, row = row_function(fitted, frame.schema), frame.row(1, named=True)
    times = []
    for _ in range(2000):
        began = time.perf_counter()
        transform(dict(row))
        times.append(time.perf_counter() - began)
    print(f"\none row, 20 columns: {sorted(times)[1000] * 1e6:.1f} µs")
