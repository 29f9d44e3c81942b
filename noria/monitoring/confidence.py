"""Confidence sequences: intervals that may be looked at after every observation, and acted upon at any time.

A confidence interval of 95% is right about 95 of 100 samples whose sizes were fixed beforehand; whoever looks every
second and stops when it excludes zero is wrong far more often, and in the long run always. A confidence *sequence* is
a rule that gives an interval for each n such that, with probability 1 - alpha, *all* of them contain the truth.

All of these come from one idea (Robbins, "Statistical methods related to the law of the iterated logarithm", 1970): the
likelihood of the data, averaged over a prior on the parameter, over the likelihood at the parameter p is a martingale
with mean 1 if p is the truth. By Ville's inequality it ever reaches 1/alpha with probability alpha at most, so that the
p for which it is below 1/alpha are a confidence sequence. Of two independent samples the product of both ratios is such
a martingale, in whatever order and shares their observations come: pairs for which it is below 1/alpha are a confidence
sequence for the pair, and the range of their differences one for the difference. It is narrower than what two sequences
at alpha/2 give.

What they need is that observations are independent and of one distribution. For means they hold in the limit only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from noria.core import ConfigError

FIRST = 100
"""Observations from which an interval for a mean is given: what holds in the limit is taken to hold from there on."""

_RHO2 = 0.008
"""The variance of the prior on a mean, in variances of an observation: narrowest at about 1,000 observations, and at
100 or a million a quarter wider."""


@dataclass(frozen=True)
class Interval:
    """All values from `lower` to `upper`."""

    lower: float
    upper: float

    def __contains__(self, value: float) -> bool:
        return self.lower <= value <= self.upper


ANYTHING = Interval(-math.inf, math.inf)
"""Where nothing is known yet."""


@dataclass(frozen=True)
class Moments:
    """What a sample's mean is judged by.

    Attributes:
        n: independent observations.
        mean: of them.
        variance: of one observation, without bias; 0 where there are fewer than two.
    """

    n: int
    mean: float
    variance: float

    @staticmethod
    def of(n: int, total: float, squares: float) -> Moments:
        """From the sums of the values and of their squares.

        >>> Moments.of(3, 6.0, 14.0)
        Moments(n=3, mean=2.0, variance=1.0)
        """
        mean = total / n if n else 0.0
        return Moments(n, mean, max(squares - n * mean * mean, 0.0) / (n - 1) if n > 1 else 0.0)

    def __add__(self, other: Moments) -> Moments:
        """Of both samples together (Chan, Golub and LeVeque, 1983)."""
        n = self.n + other.n
        if n < 2:
            return self if self.n else other
        apart = (self.mean - other.mean) ** 2 * self.n * other.n / n
        spread = self.variance * max(self.n - 1, 0) + other.variance * max(other.n - 1, 0)
        return Moments(n, (self.n * self.mean + other.n * other.mean) / n, (spread + apart) / (n - 1))


NOTHING = Moments(0, 0.0, 0.0)
"""No observation."""


def rate(successes: float, n: float, alpha: float) -> Interval:
    """A probability, from successes in n trials: exact at every n.

    The prior is Jeffreys', Beta(1/2, 1/2). Counts needn't be whole: those that stand for fewer independent ones are
    less than they were.

    Raises:
        ConfigError: alpha isn't between 0 and 1.

    >>> interval = rate(0, 1000, 0.05)
    >>> interval.lower, round(interval.upper, 4)
    (0.0, 0.007)
    """
    room = math.log(1.0 / checked(alpha)) - _log_mixture(successes, n)
    (upper,), (lower,) = (_furthest([(successes, n, sign)], room) for sign in (1.0, -1.0))
    return Interval(lower, upper)


def rate_difference(successes: float, n: float, other_successes: float, other_n: float, alpha: float) -> Interval:
    """The first probability less the second one: exact at every n of both, however they came to be.

    >>> interval = rate_difference(60, 1000, 20, 1000, 0.05)
    >>> round(interval.lower, 3), round(interval.upper, 3)
    (0.001, 0.084)
    """
    room = math.log(1.0 / checked(alpha)) - _log_mixture(successes, n) - _log_mixture(other_successes, other_n)
    (high, below), (low, above) = (
        _furthest([(successes, n, sign), (other_successes, other_n, -sign)], room) for sign in (1.0, -1.0)
    )
    return Interval(low - above, high - below)


def mean(sample: Moments, alpha: float) -> Interval:
    """The mean of values that may be of any size, as long as they have a variance.

    The asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas, "Time-uniform central limit
    theory and asymptotic confidence sequences" (2021; Annals of Statistics 52(6), 2024): with V the sample's variance
    and r² the prior's,

        mean ± sqrt(2 V (n r² + 1) / (n² r²) · log(sqrt(n r² + 1) / alpha))

    *Asymptotic* means: as the central limit theorem makes an interval for one n right if n is large, a strong
    approximation by a Brownian motion makes all of them from some n on right, with a probability that tends to
    1 - alpha as that n grows. So there is no interval before `FIRST`; there values should be neither very skewed nor
    rare. Where all values are equal there is none either, since nothing is known of how they vary.
    """
    if sample.n < FIRST or sample.variance == 0.0:
        return ANYTHING
    half = math.sqrt(2.0 * (math.log(1.0 / checked(alpha)) + _penalty(sample.n)) * _spread(sample.n, sample.variance))
    return Interval(sample.mean - half, sample.mean + half)


def mean_difference(sample: Moments, other: Moments, alpha: float) -> Interval:
    """The mean of the first sample less that of the second one: asymptotic, as `mean`, from `FIRST` of both on.

    The pairs of means that the product of both mixtures allows are an ellipse; this is its extent along the difference.
    A variance is taken to be that of both samples together where its own is less, so that a sample in which rare values
    haven't come up yet doesn't look certain.
    """
    both = sample + other
    if min(sample.n, other.n) < FIRST or both.variance == 0.0:
        return ANYTHING
    spread = sum(_spread(one.n, max(one.variance, both.variance)) for one in (sample, other))
    room = math.log(1.0 / checked(alpha)) + _penalty(sample.n) + _penalty(other.n)
    middle, half = sample.mean - other.mean, math.sqrt(2.0 * room * spread)
    return Interval(middle - half, middle + half)


def checked(alpha: float) -> float:
    """A chance to be wrong.

    Raises:
        ConfigError: it isn't between 0 and 1.
    """
    if not 0.0 < alpha < 1.0:
        raise ConfigError(f"alpha={alpha} is no chance to be wrong", hint="it is between 0 and 1: 0.05", field="alpha")
    return alpha


def _penalty(n: int) -> float:
    return 0.5 * math.log(n * _RHO2 + 1.0)


def _spread(n: int, variance: float) -> float:
    return variance * (n * _RHO2 + 1.0) / (n * n * _RHO2)


def _log_mixture(successes: float, n: float) -> float:
    """The logarithm of B(s + 1/2, n - s + 1/2) / B(1/2, 1/2): the likelihood, averaged over the prior."""
    gamma = math.lgamma
    return gamma(successes + 0.5) + gamma(n - successes + 0.5) - gamma(n + 1.0) - math.log(math.pi)


def _furthest(samples: Sequence[tuple[float, float, float]], room: float) -> list[float]:
    """The probabilities with the largest sum, by their signs, whose data aren't less likely than exp(-room).

    Minus the logarithm of the likelihood is convex, so that there is one such point; in it the derivatives of all
    samples are the same force, but for the sign. The likelihood falls as the force grows, which is therefore bisected.
    """

    def at(force: float) -> list[float]:
        return [_under(successes, n, sign * force) for successes, n, sign in samples]

    def fits(force: float) -> bool:
        return sum(_surprise(s, n, p) for (s, n, _), p in zip(samples, at(force), strict=True)) <= room

    high = 1.0
    while fits(high):
        high *= 2.0
        if high > 1e30:  # every probability is 0 or 1, and likely
            return at(high)
    low = high / 2.0 if high > 1.0 else 0.0
    for _ in range(50):
        middle = (low + high) / 2.0
        low, high = (middle, high) if fits(middle) else (low, middle)
    return at(high)


def _surprise(successes: float, n: float, p: float) -> float:
    """Minus the logarithm of the likelihood."""
    failures = n - successes
    if (successes and p <= 0.0) or (failures and p >= 1.0):
        return math.inf
    return (-successes * math.log(p) if successes else 0.0) - (failures * math.log1p(-p) if failures else 0.0)


def _under(successes: float, n: float, force: float) -> float:
    """Where the derivative of `_surprise` is the force: n p - s = force · p (1 - p)."""
    if force == 0.0:
        return successes / n if n else 0.5
    root = math.sqrt(max((n - force) ** 2 + 4.0 * force * successes, 0.0))
    p = 2.0 * successes / (n - force + root) if n > force else (force - n + root) / (2.0 * force)
    return min(max(p, 0.0), 1.0)
