from __future__ import annotations

import io
import struct
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import polars as pl
import pytest
from doubler import Doubler
from hypothesis import given, settings
from hypothesis import strategies as st
from late_model import SCHEMA, servable

import noria as nr
from noria.core import RequestError
from noria.serving import Limits, ModelServer
from noria.serving.arrow_door import STREAM
from noria.serving.arrow_stream import read_stream
from noria.serving.tabular import fields_of

MODEL = servable(SCHEMA, nr.Impute(), nr.Encode())
KNOWN = fields_of(MODEL)
ARROW = STREAM.decode()
FRAME = pl.DataFrame(
    {
        "f": [1.0, None, -2.5],
        "short": pl.Series([1.5, 2.5, 0.1], dtype=pl.Float32),
        "n": pl.Series([1, None, -3], dtype=pl.Int8),
        "on": [True, None, False],
        "s": ["a", None, "é, and longer than twelve"],
    }
)


def stream(frame: pl.DataFrame, **options: Any) -> bytes:
    written = io.BytesIO()
    frame.write_ipc_stream(written, **options)
    return written.getvalue()


OLD, NEW = (stream(FRAME, compat_level=level) for level in (pl.CompatLevel.oldest(), pl.CompatLevel.newest()))


def frame_of(body: bytes) -> pl.DataFrame:
    return pl.DataFrame({name: pl.Series(values) for name, values in read_stream(body, KNOWN).items()})


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ModelServer([MODEL], limits=Limits(max_body_bytes=50_000_000)).running() as address:
        yield address


@pytest.mark.parametrize("body", [OLD, NEW], ids=["old", "new"])
def test_a_stream_is_answered_like_json_in_arrow_or_json(url: str, body: bytes) -> None:
    expected = httpx.post(f"{url}/predict", json={"instances": FRAME.to_dicts()}).raise_for_status().json()
    for path in ("/predict", "/models/late/predict", "/models/late/versions/3/predict"):
        given_json = httpx.post(url + path, content=body, headers={"content-type": ARROW})
        assert given_json.json() == expected
        given_arrow = httpx.post(url + path, content=body, headers={"content-type": ARROW, "accept": ARROW})
        assert given_arrow.headers["content-type"] == ARROW
        assert given_arrow.headers["x-model-version"] == "3"
        answer = pl.read_ipc_stream(io.BytesIO(given_arrow.content)).to_dict(as_series=False)
        assert answer == {name: expected[name] for name in ("predictions", "scores")}
    mixed = httpx.post(f"{url}/predict", json={"instances": FRAME.to_dicts()}, headers={"accept": ARROW})
    assert mixed.content == given_arrow.content


def test_many_rows_are_answered_at_once(url: str) -> None:
    random = np.random.default_rng(0)
    rows = 50_000
    frame = pl.DataFrame(
        {"short": random.normal(size=rows), "n": random.integers(-9, 9, rows), "s": ["a", "b"] * (rows // 2)}
    )
    response = httpx.post(
        f"{url}/predict", content=stream(frame), headers={"content-type": ARROW, "accept": ARROW}, timeout=60
    )
    answer = pl.read_ipc_stream(io.BytesIO(response.content))
    few = frame.slice(49_000, 50)
    expected = httpx.post(f"{url}/predict", json={"instances": few.to_dicts()}).json()
    assert answer["scores"][49_000:49_050].to_list() == expected["scores"]


VALUES = st.fixed_dictionaries(
    {
        "f": st.none() | st.floats(-1e9, 1e9),
        "n": st.none() | st.integers(-128, 127),
        "on": st.none() | st.booleans(),
        "s": st.none() | st.text(max_size=20),
    }
)


@settings(max_examples=50, deadline=None)
@given(st.lists(VALUES, max_size=20), st.booleans(), st.integers(1, 3))
def test_what_polars_writes_is_what_is_read(rows: Any, is_old: bool, batches: int) -> None:
    schema = {"f": pl.Float64, "n": pl.Int8, "on": pl.Boolean, "s": pl.String}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    whole = pl.concat([frame] * batches, rechunk=False)
    level = pl.CompatLevel.oldest() if is_old else pl.CompatLevel.newest()
    found = frame_of(stream(whole, compat_level=level))
    assert found.rows() == whole.rows()


@pytest.mark.parametrize("dtype", [pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64, pl.Float32])
def test_every_number_is_read(dtype: Any) -> None:
    frame = pl.DataFrame({"n": pl.Series([1, 2, 0], dtype=dtype)})
    assert frame_of(stream(frame)).equals(frame)
    nulls = pl.DataFrame({"n": [None, None], "f": [None, 1.0]})
    assert frame_of(stream(nulls)).rows() == nulls.rows()


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (FRAME, {"compression": "zstd"}, "compressed"),
        (FRAME.rename({"f": "g"}), {}, "no input 'g'"),
        (pl.DataFrame({"f": [[1.0]]}), {}, "column 'f' has the type"),
        (pl.DataFrame({"s": pl.Series(["a"], dtype=pl.Categorical)}), {}, "dictionary"),
        (pl.DataFrame({"f": pl.Series([1], dtype=pl.Date)}), {}, "date"),
        (pl.DataFrame({"short": pl.Series([], dtype=pl.Float32)}), {}, "0 rows"),
    ],
)
def test_what_is_not_read_is_told(url: str, frame: pl.DataFrame, options: Any, message: str) -> None:
    response = httpx.post(f"{url}/predict", content=stream(frame, **options), headers={"content-type": ARROW})
    assert 400 <= response.status_code < 500
    assert message in response.json()["detail"]
    assert response.headers["content-type"] == "application/problem+json"


def test_other_servables_read_no_arrow() -> None:
    with ModelServer([Doubler()]).running() as url:
        response = httpx.post(f"{url}/predict", content=OLD, headers={"content-type": ARROW})
        assert response.status_code == 400
        assert "rows of a table" in response.json()["detail"]


def refusal(body: bytes) -> int:
    try:
        MODEL.table(read_stream(body, KNOWN))
    except RequestError as error:
        return error.status
    return 200


LIES = st.sampled_from([0, -1, 1, 2**31 - 1, 2**40, 2**62, 2**63 - 1, -(2**63)]).map(lambda n: struct.pack("<q", n))


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from([OLD, NEW]),
    st.lists(
        st.tuples(st.integers(0, len(NEW)), st.integers(0, 8), st.binary(max_size=9) | LIES), min_size=1, max_size=4
    ),
)
def test_a_mutated_stream_is_read_or_refused(body: bytes, changes: Any) -> None:
    for at, gone, replacement in changes:
        body = body[:at] + replacement + body[at + gone :]
    assert 200 <= refusal(body) < 500


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_refused(raw: bytes, is_framed: bool) -> None:
    body = struct.pack("<Ii", 0xFFFFFFFF, len(raw)) + raw if is_framed else raw
    assert 400 <= refusal(body) < 500


def test_a_short_body_can_t_ask_for_much() -> None:
    huge = struct.pack("<q", 2**40)
    for at in range(0, len(OLD) - 8, 4):
        assert refusal(OLD[:at] + huge + OLD[at + 8 :]) in (200, 400, 422)
    began = time.monotonic()
    text = pl.DataFrame({"s": ["x" * 1_000_000] * 3, "short": [1.0] * 3})
    assert refusal(stream(text)) == 200
    assert time.monotonic() - began < 5
