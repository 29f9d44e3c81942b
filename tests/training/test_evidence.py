"""How much better a version is: by how many rows, and by whose."""

from __future__ import annotations

import numpy as np
import pytest

from noria.training.answers import Answers
from noria.training.bootstrap import Rows
from noria.training.evidence import interval_of_gain


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss", "accuracy"])
def test_rows_of_one_entity_are_no_evidence_of_their_own(metric: str) -> None:
    random = np.random.default_rng(0)
    people, each = 40, 25
    truth = random.integers(0, 2, people * each)
    sure = np.clip(truth * 0.4 + 0.3 + random.normal(0, 0.2, len(truth)), 0.01, 0.99)
    # The other model errs for the same people throughout.
    less = np.where(np.repeat(random.random(people) < 0.3, each), 1 - sure, sure)
    ours, theirs = (Answers.of(truth, scores > 0.5, scores) for scores in (sure, less))
    alone = interval_of_gain(metric, ours, theirs, Rows(len(truth)))
    together = interval_of_gain(metric, ours, theirs, Rows(len(truth), np.repeat(np.arange(people), each)))
    assert 0 < together[0] < alone[0] < alone[1] < together[1]
    assert np.isnan(
        interval_of_gain("roc_auc", ours.take(truth == 1), theirs.take(truth == 1), Rows(truth.sum()))
    ).all()
