"""What every split keeps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from noria.core import ConfigError
from noria.training.splits import Fold, Split, earlier_folds

DAY = 86_400_000_000


@dataclass(frozen=True)
class Rows:
    """Rows to divide: instants, whose they are, and what is to be predicted."""

    times: NDArray[np.int64]
    entities: NDArray[Any]
    target: NDArray[Any]

    def divided(self, split: Split, seed: int = 0) -> Fold:
        """The split's parts."""
        return split.masks(self.times, len(self.times), seed, self.entities, self.target)


def made_rows(count: int, seed: int) -> Rows:
    """Rows of 60 days, of some 20 entities, and of three classes of which one is rare."""
    random = np.random.default_rng(seed)
    days, entities = random.integers(0, 60, count), random.integers(0, 20, count)
    return Rows(days * DAY, entities, random.choice(["a", "b", "c"], count, p=[0.6, 0.35, 0.05]))


class SplitConformance:
    """Subclass it and give `split`: a fresh definition, which can divide 60 days of rows."""

    def split(self) -> Split:
        """The split under test."""
        raise NotImplementedError

    @pytest.mark.parametrize("seed", range(5))
    def test_no_row_both_teaches_and_judges(self, seed: int) -> None:
        rows = made_rows(400, seed)
        split = self.split()
        for train, test in (*earlier_folds(split, rows.times, 400), rows.divided(split)):
            assert train.dtype == test.dtype == np.bool_
            assert train.shape == test.shape == (400,)
            assert train.any()
            assert test.any()
            assert not (train & test).any()
            if getattr(split, "is_ordered", False):
                assert rows.times[train].max() < rows.times[test].min()

    def test_the_seed_says_all(self) -> None:
        rows = made_rows(400, 1)
        once, again = rows.divided(self.split(), 7), rows.divided(self.split(), 7)
        assert (once[0] == again[0]).all()
        assert (once[1] == again[1]).all()

    def test_rows_may_come_in_any_order_of_memory(self) -> None:
        rows = made_rows(400, 2)
        wide = Rows(*(np.repeat(part, 2)[::2] for part in (rows.times, rows.entities, rows.target)))
        assert (rows.divided(self.split())[1] == wide.divided(self.split())[1]).all()

    def test_too_few_rows_are_refused(self) -> None:
        for count in (0, 1):
            with pytest.raises(ConfigError):
                made_rows(count, 0).divided(self.split())

    def test_the_definition_is_plain(self) -> None:
        definition = self.split().to_dict()
        assert definition["split"]
        assert json.loads(json.dumps(definition)) == definition
        assert self.split().to_dict() == definition
