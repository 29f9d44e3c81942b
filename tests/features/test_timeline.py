"""Sorting events: by entity and time, and by arrival where these are equal."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.features.timeline import Timeline


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 600), st.integers(1, 12), st.sampled_from([1, 5, 40, 10**6]))
def test_rows_are_in_the_order_of_entity_time_and_arrival(seed: int, rows: int, entities: int, instants: int) -> None:
    rng = np.random.default_rng(seed)
    ids, times = rng.integers(0, entities, rows), rng.integers(0, instants, rows)
    if seed % 3 == 0:  # mostly in order, as events are
        times = np.sort(times)
        times[rng.integers(0, max(rows, 1), rows // 20)] = 0
    frame = pl.DataFrame({"id": ids, "at": times}).with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))
    line = Timeline.of(frame, ["id"], "at")
    assert line.order.tolist() == np.lexsort((np.arange(rows), times, ids)).tolist()
    assert line.times.tolist() == times[line.order].tolist()


@pytest.mark.parametrize("ids", [[3, 5, None, 3], [0, 2**62, -(2**62), 0], ["a", "b", None, "a"]])
def test_each_id_has_a_number_and_strangers_have_none(ids: list[object]) -> None:
    frame = pl.DataFrame({"id": ids, "at": pl.Series([4, 3, 2, 1]).cast(pl.Datetime("us", "UTC"))})
    line = Timeline.of(frame, ["id"], "at")
    numbers = line.numbers(pl.DataFrame({"id": [*ids, "nobody" if isinstance(ids[0], str) else 7]}, strict=False))
    assert numbers[0] == numbers[3] >= 0
    assert numbers[0] != numbers[1]
    assert numbers[4] == -1 or line.starts[numbers[4]] == line.starts[numbers[4] + 1]
    known = line.entities.ids(numbers[:2], frame.select("id").schema)["id"].to_list()
    assert known == ids[:2]
