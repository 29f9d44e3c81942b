from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.core import ConfigError
from noria.training import LeaveLastOut, RandomSplit, TimeSplit

TIMES = st.lists(st.integers(0, 50), min_size=2, max_size=60).filter(lambda times: len(set(times)) > 1)


@given(TIMES, st.floats(0.05, 0.95))
def test_a_time_split_never_trains_on_the_future(times: list[int], share: float) -> None:
    at = np.array(times, dtype=np.int64)
    try:
        train, test = TimeSplit(share).masks(at, len(at), 0)
    except ConfigError:
        return
    assert (train ^ test).all()
    assert train.any()
    assert test.any()
    assert at[train].max() < at[test].min()


@given(TIMES, st.data(), st.floats(0.05, 0.95))
def test_the_last_ones_of_each_entity_are_left_out(times: list[int], data: st.DataObject, share: float) -> None:
    at = np.array(times, dtype=np.int64)
    entities = np.array(data.draw(st.lists(st.integers(0, 5), min_size=len(at), max_size=len(at))))
    try:
        train, test = LeaveLastOut(share).masks(at, len(at), 0, entities)
    except ConfigError:
        assert len(np.unique(entities)) == len(entities)
        return
    assert (train ^ test).all()
    for entity in np.unique(entities):
        mine = entities == entity
        assert train[mine].any()
        assert test[mine].any() == (mine.sum() > 1)
        if test[mine].any():
            assert at[mine & train].max() <= at[mine & test].min()


def test_a_random_split_is_repeatable_and_as_large_as_asked() -> None:
    masks = [RandomSplit(0.25).masks(None, 100, seed)[1] for seed in (1, 1, 2)]
    assert masks[0].sum() == 25
    assert (masks[0] == masks[1]).all()
    assert (masks[0] != masks[2]).any()


def test_what_can_not_be_split_is_explained() -> None:
    same = np.zeros(5, dtype=np.int64)
    with pytest.raises(ConfigError, match="same event time"):
        TimeSplit().masks(same, 5, 0)
    with pytest.raises(ConfigError, match="needs an event time"):
        TimeSplit().masks(None, 5, 0)
    with pytest.raises(ConfigError, match="can't be split"):
        RandomSplit().masks(None, 1, 0)
    with pytest.raises(ConfigError, match="is not a share"):
        TimeSplit(test=20)
    with pytest.raises(ConfigError, match="more than one row"):
        LeaveLastOut().masks(same, 5, 0, np.arange(5))
