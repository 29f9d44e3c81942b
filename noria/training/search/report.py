"""What came of one trial, and how long the unpromising ones go on.

A trial says how good it is at each of its steps: after 50, 150 and 450 rounds of boosting in its first fold, then
after each fold. One that is worse at a step than the bar, which the trials before it have set there, ends early. Bars
are plain numbers, so that a worker on another machine takes them along.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from noria.core import ConfigError, allowed

RUNGS = (50, 150, 450)
"""Rounds of boosting after which a trial may end."""
ENOUGH = 5
"""Trials that must have come to a step before it gets a bar."""
KEPT = 3
"""With `halving`, one of so many goes on at each step."""
RULES = ("median", "halving")

COMPLETE, PRUNED, FAILED, LATE = "complete", "pruned", "failed", "out of time"


@dataclass(frozen=True)
class Report:
    """What came of a trial.

    Attributes:
        end: `complete`, `pruned`, `failed`, or `out of time`.
        score: of all folds; NaN unless it is complete.
        steps: the score at each step that it came to.
        seconds: that it took.
        reason: why it failed.
        rounds: of boosting that were best, for each fold in which something watched over it.
    """

    end: str
    score: float = math.nan
    steps: Mapping[int, float] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    rounds: tuple[int, ...] = ()


def pruning_rule(pruning: bool | str) -> str:
    """The rule's name; empty for none.

    Raises:
        ConfigError: there is none of this name.
    """
    if pruning is True:
        return "median"
    if pruning is False:
        return ""
    if pruning not in RULES:
        raise ConfigError(f"unknown pruning {pruning!r}", hint=allowed(RULES, str(pruning)), field="pruning")
    return pruning


def bars(rule: str, histories: Iterable[Mapping[int, float]], *, greater_is_better: bool) -> dict[int, float]:
    """For each step, the value that a trial has to reach there.

    Args:
        rule: `median`: as good as half of the trials that came there. `halving`: as good as the best third of them,
            as in asynchronous successive halving (Li et al., 2018), of which Hyperband is several with other first
            steps. Empty: no bars.
        histories: the steps of each trial before.
        greater_is_better: whether a larger value is a better one.
    """
    if not rule:
        return {}
    sign = 1.0 if greater_is_better else -1.0
    values: dict[int, list[float]] = {}
    for history in histories:
        for step, value in history.items():
            values.setdefault(step, []).append(sign * value)
    share = 0.5 if rule == "median" else 1 - 1 / KEPT
    return {step: sign * float(np.quantile(found, share)) for step, found in values.items() if len(found) >= ENOUGH}


def is_worse(value: float, bar: float | None, *, greater_is_better: bool) -> bool:
    """Whether a trial with this value has to end."""
    if bar is None:
        return False
    return value < bar if greater_is_better else value > bar
