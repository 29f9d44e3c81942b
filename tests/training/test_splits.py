from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from noria import training
from noria.core import ConfigError
from noria.testing import SplitConformance
from noria.training import GroupSplit, LeaveLastOut, RandomSplit, RollingSplit, Split, StratifiedSplit, TimeSplit
from noria.training.splits import Fold, Folded, earlier_folds

DAY = 86_400_000_000
SHARES = st.floats(0.05, 0.95)
EMBARGOES = st.sampled_from([None, "1d", "5d", "40d"])
SPLITS: st.SearchStrategy[Split] = st.one_of(
    st.builds(RandomSplit, SHARES),
    st.builds(StratifiedSplit, SHARES),
    st.builds(GroupSplit, SHARES),
    st.builds(TimeSplit, SHARES, EMBARGOES),
    st.builds(RollingSplit, st.integers(2, 4), st.floats(0.05, 0.24), EMBARGOES, st.sampled_from([None, "9d"])),
    st.builds(LeaveLastOut, SHARES),
    st.builds(LeaveLastOut, n=st.integers(1, 3)),
)
ROWS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5), st.sampled_from("abc")), min_size=0, max_size=60)


def columns(rows: list[tuple[int, int, str]]) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    times = np.array([time * DAY for time, _, _ in rows], dtype=np.int64)
    return times, np.array([entity for _, entity, _ in rows]), np.array([kind for _, _, kind in rows])


CONFORMING: list[Split] = [
    RandomSplit(), StratifiedSplit(), GroupSplit(), TimeSplit(), TimeSplit(embargo="3d"), RollingSplit(),
    RollingSplit(folds=2, embargo="3d", window="20d"), LeaveLastOut(), LeaveLastOut(n=1),
]  # fmt: skip


@pytest.mark.parametrize("made", CONFORMING, ids=str)
class TestSplits(SplitConformance):
    @pytest.fixture(autouse=True)
    def _made(self, made: Split) -> None:
        self.made = made

    def split(self) -> Split:
        return self.made


def test_every_public_split_is_tested() -> None:
    public = {getattr(training, name) for name in training.__all__ if name.endswith(("Split", "Out"))} - {Split}
    assert public == {type(split) for split in CONFORMING}


@settings(max_examples=400, deadline=None)
@given(SPLITS, ROWS, st.integers(0, 9))
def test_every_split_keeps_the_contract(split: Split, rows: list[tuple[int, int, str]], seed: int) -> None:
    times, entities, target = columns(rows)
    try:
        folds = [*earlier_folds(split, times, len(rows)), split.masks(times, len(rows), seed, entities, target)]
    except ConfigError:
        return
    for train, test in folds:
        assert train.dtype == test.dtype == np.bool_
        assert len(train) == len(test) == len(rows)
        assert train.any()
        assert test.any()
        assert not (train & test).any()
        if getattr(split, "is_ordered", False):
            assert times[train].max() < times[test].min()
        elif not isinstance(split, Folded):
            assert (train | test).all()
    train, test = split.masks(times, len(rows), seed, entities, target)
    assert (folds[-1][0] == train).all()
    assert (folds[-1][1] == test).all()
    check_sides(split, times, entities, target, (train, test))
    assert split.to_dict()["split"]
    assert None not in split.to_dict().values()


def check_sides(
    split: Split, times: NDArray[np.int64], entities: NDArray[Any], target: NDArray[Any], fold: Fold
) -> None:
    """What only some splits promise."""
    train, test = fold
    if isinstance(split, GroupSplit):
        assert not np.isin(entities[train], entities[test]).any()
    if isinstance(split, StratifiedSplit):
        for kind in np.unique(target):
            mine = target == kind
            assert train[mine].any()
            assert test[mine].any() == (mine.sum() > 1)
            assert abs(test[mine].sum() - split.test * mine.sum()) <= 1
    if isinstance(split, (TimeSplit, RollingSplit)) and split.embargo is not None:
        pause = int(split.embargo[:-1]) * DAY
        assert times[train].max() < times[test].min() - pause + 1
    if isinstance(split, LeaveLastOut):
        for entity in np.unique(entities):
            mine = entities == entity
            assert train[mine].any()
            assert test[mine].any() == (mine.sum() > 1)
            if split.n is not None:
                assert test[mine].sum() == min(split.n, mine.sum() - 1)
            if test[mine].any():
                assert times[mine & train].max() <= times[mine & test].min()


def test_a_random_split_is_repeatable_and_as_large_as_asked() -> None:
    target = np.arange(100) % 10 == 0
    for split in (RandomSplit(0.25), StratifiedSplit(0.25), GroupSplit(0.25)):
        masks = [split.masks(None, 100, seed, np.arange(100), target)[1] for seed in (1, 1, 2)]
        assert abs(masks[0].sum() - 25) <= 1
        assert (masks[0] == masks[1]).all()
        assert (masks[0] != masks[2]).any()


def test_rolling_folds_move_with_time() -> None:
    times = np.arange(100, dtype=np.int64) * DAY
    folds = RollingSplit(folds=3, test=0.1, embargo="5d", window="30d").each(times, 100)
    assert [int(test.argmax()) for _, test in folds] == [70, 80, 90]
    assert [int(test.sum()) for _, test in folds] == [10, 10, 10]
    assert [(int(train.argmax()), int(train.sum())) for train, _ in folds] == [(35, 30), (45, 30), (55, 30)]


def test_what_can_not_be_split_is_explained() -> None:
    same = np.zeros(5, dtype=np.int64)
    with pytest.raises(ConfigError, match="same event time"):
        TimeSplit().masks(same, 5, 0)
    with pytest.raises(ConfigError, match="needs an event time"):
        TimeSplit().masks(None, 5, 0)
    with pytest.raises(ConfigError, match="embargo of 9d lie all rows"):
        TimeSplit(embargo="9d").masks(np.arange(5) * DAY, 5, 0)
    with pytest.raises(ConfigError, match="not a duration"):
        TimeSplit(embargo="nine days")
    with pytest.raises(ConfigError, match="can't be split"):
        RandomSplit().masks(None, 1, 0)
    with pytest.raises(ConfigError, match="is not a share"):
        TimeSplit(test=20)
    with pytest.raises(ConfigError, match="more than one row"):
        LeaveLastOut().masks(same, 5, 0, np.arange(5))
    with pytest.raises(ConfigError, match="n=0"):
        LeaveLastOut(n=0)
    with pytest.raises(ConfigError, match="whose each row is"):
        GroupSplit().masks(same, 5, 0)
    with pytest.raises(ConfigError, match="one entity"):
        GroupSplit().masks(same, 5, 0, same)
    with pytest.raises(ConfigError, match="nothing to balance"):
        StratifiedSplit().masks(None, 5, 0, target=same)
    with pytest.raises(ConfigError, match="target with classes"):
        StratifiedSplit().masks(None, 5, 0, target=np.arange(5.0))
    with pytest.raises(ConfigError, match="no class has more than one row"):
        StratifiedSplit().masks(None, 5, 0, target=np.arange(5))
    with pytest.raises(ConfigError, match="has no rows to train on"):
        RollingSplit(embargo="9d").masks(np.arange(5) * DAY, 5, 0)
    with pytest.raises(ConfigError, match="leave nothing"):
        RollingSplit(folds=5, test=0.2)
