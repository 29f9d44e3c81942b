"""What counts of requests are worth: the requests of one entity are alike.

Who answers an entity is decided once. If some entity fails each time, whoever answers, and asks often, then the variant
that it has met has more errors, for no fault of its own; as many independent requests would have told. Servers
therefore count apart what happened to each of some groups of entities (`Tally.groups`). The variance of a rate or mean
that the differences between groups show, over that which independent requests would have, is the *design effect*
(Kish, *Survey Sampling*, 1965); counts are divided by it before they are judged (Rao and Scott, "A simple method for
the analysis of clustered binary data", Biometrics 48, 1992). Of independent requests it is about 1.
"""

from __future__ import annotations

from collections.abc import Sequence

from noria.monitoring.confidence import NOTHING, Moments
from noria.serving.exposures import Tally


def effective_errors(tally: Tally) -> tuple[float, float]:
    """The errors and requests that independent ones would have told as much with."""
    share = tally.errors / tally.requests if tally.requests else 0.0
    spread = tally.requests * share * (1.0 - share)
    effect = design_effect(
        [group.errors for group in tally.groups], [group.requests for group in tally.groups], share, spread
    )
    return tally.errors / effect, tally.requests / effect


def effective_logarithms(tally: Tally) -> Moments:
    """The logarithms of the latencies of what didn't fail, as so many independent ones."""
    found = Moments.of(tally.requests - tally.errors, tally.log_seconds, tally.log_seconds2)
    if not found.n:
        return NOTHING
    effect = design_effect(
        [group.log_seconds for group in tally.groups],
        [group.requests - group.errors for group in tally.groups],
        found.mean,
        found.n * found.variance,
    )
    return Moments(int(found.n / effect), found.mean, found.variance)


def design_effect(totals: Sequence[float], counts: Sequence[int], mean: float, spread: float) -> float:
    """How many times the variance of a total is what it would be of independent observations; 1 at least.

    Args:
        totals, counts: of the groups.
        mean: of all observations.
        spread: the variance of their total if they are independent; where it is 0 nothing can be told.
    """
    met = [(total, count) for total, count in zip(totals, counts, strict=True) if count]
    if not met or spread <= 0.0:
        return 1.0
    if len(met) == 1:  # perhaps one entity alone: all its requests are one observation
        return float(met[0][1])
    apart = sum((total - mean * count) ** 2 for total, count in met) * len(met) / (len(met) - 1)
    return max(apart / spread, 1.0)
