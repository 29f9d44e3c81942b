from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

import noria as nr
from noria.core import Schema
from noria.pipelines import fit_steps
from noria.pipelines.dtypes import polars_schema
from noria.training.inputs import FEW, ModelInputs

SCHEMA = Schema.of({"f": "float64?", "short": "float32?", "n": "int32?", "on": "bool?", "s": "str?"})
ROW = st.tuples(
    st.none() | st.floats(-1e6, 1e6),
    st.none() | st.floats(-1e6, 1e6),
    st.none() | st.integers(-1000, 1000),
    st.none() | st.booleans(),
    st.none() | st.sampled_from(["a", "b", "c", ""]),
)
CHAINS = st.sampled_from(
    [
        [nr.Encode()],
        [nr.Impute(), nr.Encode(), nr.Normalize(["f", "short", "n"])],
        [nr.Encode(method="onehot"), nr.Clip(["f"], low=0)],
        [nr.Derive({"g": nr.col("f") * 2 + nr.col("n")}), nr.Drop(["s"])],
        [nr.Encode(), nr.DropMissing(["f"])],
    ]
)


@settings(max_examples=150, deadline=None)
@given(CHAINS, st.lists(ROW, min_size=1, max_size=6), st.lists(ROW, min_size=1, max_size=6))
def test_rows_one_by_one_give_the_matrix_of_the_frame_to_the_bit(chain: Any, past: Any, rows: Any) -> None:
    fitted, _ = fit_steps(chain, pl.DataFrame(past, schema=polars_schema(SCHEMA), orient="row"))
    inputs = ModelInputs(SCHEMA, fitted)
    assert inputs.matrix_of_rows(rows).tobytes() == inputs.matrix(inputs.frame(rows)).tobytes()


def test_many_rows_and_days_go_by_the_frame() -> None:
    inputs = ModelInputs(Schema.of({"f": "float64?"}), ())
    rows = [(float(n),) for n in range(FEW + 5)]
    assert inputs.matrix_of_rows(rows).shape == (FEW + 5, 1)
    assert np.isnan(inputs.matrix_of_rows([(None,)])).all()
