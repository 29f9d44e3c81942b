"""Parity: whether what a server read online is what a training set has for the same entity and instant.

Here it is only compared and counted; `noria.features.recomputation` computes the offline side.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

TOLERANCE = 1e-9
"""Numbers that differ by no more than this share of themselves are equal, and counted as `close` besides."""
_EXAMPLES = 3

Outcome = Literal["equal", "late", "different", "unknown"]
Likeness = Literal["same", "close", "unlike"]


@dataclass
class FeatureParity:
    """How many of a feature's values had which outcome.

    Attributes:
        equal: the same to the bit, or both missing; or `close`.
        close: of those equal, the ones that are so within `TOLERANCE` only.
        late: they differ now, and are equal on the rows that were there when they were made: later events explain it.
        different: nothing explains it.
        unknown: they differ now, and the rows of that time can't be told or read any more.
    """

    feature: str
    equal: int = 0
    close: int = 0
    late: int = 0
    different: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class Example:
    """A value that isn't equal; instants in microseconds."""

    feature: str
    outcome: Outcome
    prediction: str
    entity: Any
    read_at: int
    as_of: int | None
    online: Any
    offline: Any


@dataclass
class Parity:
    """What a comparison found.

    Attributes:
        vectors: entities' values of a group that were compared.
        features: by full name.
        examples: some of each feature and outcome but `equal`.
        reasons: why values are `unknown`, with their numbers.
    """

    vectors: int = 0
    features: dict[str, FeatureParity] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def total(self, outcome: Literal["equal", "close", "late", "different", "unknown"]) -> int:
        """Over all features."""
        return sum(int(getattr(one, outcome)) for one in self.features.values())

    def count(self, example: Example, *, close: bool = False) -> None:
        """Count a value, and keep it as an example if there are few like it."""
        one = self.features.setdefault(example.feature, FeatureParity(example.feature))
        setattr(one, example.outcome, getattr(one, example.outcome) + 1)
        one.close += close
        if example.outcome != "equal" and getattr(one, example.outcome) <= _EXAMPLES:
            self.examples.append(example)


def likeness(online: Any, offline: Any) -> Likeness:
    """Whether two values, as they come out of JSON, are the same.

    >>> likeness(0.1 + 0.2, 0.3), likeness(None, None), likeness(0, None), likeness([1, 2], [1, 2])
    ('close', 'same', 'unlike', 'same')
    """
    if isinstance(online, list) and isinstance(offline, list):
        if len(online) != len(offline):
            return "unlike"
        found = {likeness(one, other) for one, other in zip(online, offline, strict=True)}
        return "unlike" if "unlike" in found else "close" if "close" in found else "same"
    if isinstance(online, float) and isinstance(offline, float):
        if online.hex() == offline.hex():
            return "same"
        return "close" if math.isclose(online, offline, rel_tol=TOLERANCE) else "unlike"
    return "same" if type(online) is type(offline) and online == offline else "unlike"
