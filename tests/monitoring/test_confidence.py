"""Confidence sequences, by simulation: thousands of experiments without a difference, looked at all the time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import gammaln

from noria.core import ConfigError
from noria.monitoring.confidence import (
    ANYTHING,
    FIRST,
    Interval,
    Moments,
    mean,
    mean_difference,
    rate,
    rate_difference,
)

ALPHA = 0.05
EXPERIMENTS = 2_000
MOST = ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / EXPERIMENTS)
"""What a chance of alpha may show in so many experiments, by three standard errors."""

Counts = NDArray[np.int64]


def log_mixture(successes: Counts, n: Counts) -> NDArray[np.float64]:
    return np.asarray(gammaln(successes + 0.5) + gammaln(n - successes + 0.5) - gammaln(n + 1.0) - math.log(math.pi))


def surprise(successes: Counts, n: Counts, p: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        one = np.where(successes > 0, -successes * np.log(p), 0.0)
        return np.asarray(one + np.where(n > successes, -(n - successes) * np.log1p(-p), 0.0))


def excludes_no_difference(s1: Counts, n1: Counts, s2: Counts, n2: Counts, alpha: float) -> NDArray[np.bool_]:
    """What `0.0 not in rate_difference(…)` says, of arrays: of all pairs without a difference, the likeliest is the
    pooled rate."""
    pooled = (s1 + s2) / (n1 + n2)
    room = math.log(1 / alpha) - log_mixture(s1, n1) - log_mixture(s2, n2)
    return np.asarray(surprise(s1, n1, pooled) + surprise(s2, n2, pooled) > room)


def trials(rng: np.random.Generator, p: float, batch: int, looks: int) -> tuple[Counts, Counts]:
    """Successes after each batch of each experiment, and the trials."""
    successes = rng.binomial(batch, p, (EXPERIMENTS, looks)).cumsum(axis=1)
    return successes, np.arange(1, looks + 1) * batch


@pytest.mark.parametrize("p", [0.002, 0.05, 0.5])
def test_a_rate_is_ever_missed_with_the_chance_alpha_at_most(p: float) -> None:
    successes, n = trials(np.random.default_rng(1), p, 10, 1_000)
    missed = surprise(successes, n, np.full_like(n, p, dtype=float)) > math.log(1 / ALPHA) - log_mixture(successes, n)
    assert missed.any(axis=1).mean() <= MOST


@pytest.mark.parametrize("p", [0.002, 0.05, 0.5])
@pytest.mark.parametrize("batches", [(50, 50), (5, 95)], ids=["half", "canary"])
def test_equal_rates_ever_differ_with_the_chance_alpha_at_most(p: float, batches: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    (s1, n1), (s2, n2) = (trials(rng, p, batch, 500) for batch in batches)
    assert excludes_no_difference(s1, n1, s2, n2, ALPHA).any(axis=1).mean() <= MOST


def test_a_test_for_one_n_finds_differences_that_are_not_there() -> None:
    """Why not a z-test: it is right at one n, and wrong if it is looked at after every batch."""
    rng = np.random.default_rng(2)
    (s1, n), (s2, _) = (trials(rng, 0.05, 50, 500) for _ in "ab")
    pooled = (s1 + s2) / (2 * n)
    z = np.abs(s1 - s2) / n / np.sqrt(2 * pooled * (1 - pooled) / n + 1e-12)
    assert (z[:, -1] > 1.96).mean() <= MOST  # at the end alone
    assert (z > 1.96).any(axis=1).mean() > 6 * ALPHA


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_difference_is_what_the_likelihoods_say(data: st.DataObject) -> None:
    n1, n2 = (data.draw(st.integers(1, 10_000)) for _ in "ab")
    s1, s2 = data.draw(st.integers(0, n1)), data.draw(st.integers(0, n2))
    found = rate_difference(s1, n1, s2, n2, ALPHA)
    assert -1.0 <= found.lower <= s1 / n1 - s2 / n2 <= found.upper <= 1.0
    mirrored = rate_difference(s2, n2, s1, n1, ALPHA)
    assert (mirrored.lower, mirrored.upper) == pytest.approx((-found.upper, -found.lower), abs=1e-9)
    arrays = [np.array([value]) for value in (s1, n1, s2, n2)]
    if min(abs(found.lower), abs(found.upper)) > 1e-9:
        assert (0.0 not in found) == bool(excludes_no_difference(*arrays, ALPHA)[0])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from([0.2, 0.05, 1e-4]))
def test_the_ends_of_a_rate_are_as_likely_as_alpha_allows(successes: int, failures: int, alpha: float) -> None:
    n = successes + failures
    found = rate(successes, n, alpha)
    room = math.log(1 / alpha) - float(log_mixture(np.array(successes), np.array(n)))
    for end, limit in ((found.lower, 0.0), (found.upper, 1.0)):
        if end != limit:
            assert float(surprise(np.array(successes), np.array(n), np.array(end))) == pytest.approx(room, rel=1e-6)


def test_nothing_is_known_of_what_was_never_tried() -> None:
    assert rate(0, 0, ALPHA) == Interval(0.0, 1.0)
    unknown = rate_difference(0, 0, 5, 10, ALPHA)
    assert unknown.lower < -0.5 and unknown.upper > 0.5  # noqa: PT018
    assert rate_difference(0, 0, 0, 0, ALPHA) == Interval(-1.0, 1.0)
    with pytest.raises(ConfigError, match="alpha=1"):
        rate(1, 2, 1.0)


def test_counts_of_a_year() -> None:
    """Of so many the likelihoods are normal, and the interval is known in closed form."""
    counts = ((30_000_000, 1_000_000_000), (2_900_000, 100_000_000))
    room = math.log(1 / ALPHA) - sum(float(log_mixture(np.array(s), np.array(n))) for s, n in counts)
    likeliest = sum(float(surprise(np.array(s), np.array(n), np.array(s / n))) for s, n in counts)
    half = math.sqrt(2 * (room - likeliest) * sum(s / n * (1 - s / n) / n for s, n in counts))
    found = rate_difference(*counts[0], *counts[1], ALPHA)
    assert found.lower == pytest.approx(0.001 - half, rel=1e-3)
    assert found.upper == pytest.approx(0.001 + half, rel=1e-3)


def test_a_real_difference_of_rates_is_found_soon() -> None:
    """5% instead of 1% of errors: half of the experiments know after 1,000 requests, nearly all after 2,000."""
    rng = np.random.default_rng(3)
    (s1, n), (s2, _) = trials(rng, 0.05, 25, 80), trials(rng, 0.01, 25, 80)
    found = excludes_no_difference(s1, n, s2, n, ALPHA)
    assert found[:, : 1_000 // 25].any(axis=1).mean() > 0.5
    assert found.any(axis=1).mean() > 0.95
    s1_end, s2_end = int(s1[0, -1]), int(s2[0, -1])
    assert 0.04 in rate_difference(s1_end, 2_000, s2_end, 2_000, ALPHA)


def draw(kind: str, rng: np.random.Generator, looks: int, batch: int) -> NDArray[np.float64]:
    shape = (EXPERIMENTS, looks, batch)
    if kind == "normal":
        return rng.normal(-5.0, 0.5, shape)
    if kind == "exponential":
        return rng.exponential(3.0, shape)
    return (rng.random(shape) < 0.03).astype(float)


def sums(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return values.sum(axis=2).cumsum(axis=1), (values**2).sum(axis=2).cumsum(axis=1)


TRUTH = {"normal": -5.0, "exponential": 3.0, "rare": 0.03}


@pytest.mark.parametrize("kind", ["normal", "exponential", "rare"])
def test_a_mean_is_ever_missed_with_the_chance_alpha_at_most(kind: str) -> None:
    total, squares = sums(draw(kind, np.random.default_rng(4), 40, 50))
    missed = 0
    for one in range(EXPERIMENTS):
        looks = (
            mean(Moments.of((look + 1) * 50, float(total[one, look]), float(squares[one, look])), ALPHA)
            for look in range(total.shape[1])
        )
        missed += any(TRUTH[kind] not in interval for interval in looks)
    assert missed / EXPERIMENTS <= MOST


@pytest.mark.parametrize("kind", ["normal", "exponential", "rare"])
@pytest.mark.parametrize("batches", [(50, 50), (10, 90)], ids=["half", "canary"])
def test_equal_means_ever_differ_with_the_chance_alpha_at_most(kind: str, batches: tuple[int, int]) -> None:
    rng = np.random.default_rng(5)
    (t1, q1), (t2, q2) = (sums(draw(kind, rng, 40, batch)) for batch in batches)
    missed = 0
    for one in range(EXPERIMENTS):
        for look in range(40):
            sample, other = (
                Moments.of((look + 1) * batch, float(t[one, look]), float(q[one, look]))
                for batch, t, q in ((batches[0], t1, q1), (batches[1], t2, q2))
            )
            if 0.0 not in mean_difference(sample, other, ALPHA):
                missed += 1
                break
    assert missed / EXPERIMENTS <= MOST


def test_a_real_difference_of_means_is_found_soon() -> None:
    rng = np.random.default_rng(6)
    slow, usual = (sums(rng.normal(middle, 0.5, (200, 20, 50))) for middle in (-4.8, -5.0))
    found = [
        any(
            mean_difference(
                *(Moments.of((look + 1) * 50, float(t[one, look]), float(q[one, look])) for t, q in (slow, usual)),
                ALPHA,
            ).lower
            > 0
            for look in range(20)
        )
        for one in range(200)
    ]
    assert np.mean(found) > 0.95


def test_means_of_few_or_equal_values_may_be_anything() -> None:
    few, enough = Moments(FIRST - 1, 1.0, 1.0), Moments(FIRST, 1.0, 1.0)
    assert mean(few, ALPHA) == mean_difference(few, enough, ALPHA) == ANYTHING
    assert mean(Moments(FIRST, 1.0, 0.0), ALPHA) == ANYTHING
    none = Moments(1_000, 0.0, 0.0)
    assert mean_difference(none, none, ALPHA) == ANYTHING


def test_a_sample_without_a_rare_value_is_not_certain() -> None:
    """No reward yet of 100 is no proof that there are none, where 2% have one."""
    found = mean_difference(Moments(100, 0.0, 0.0), Moments(10_000, 0.02, 0.0196), ALPHA)
    assert 0.0 in found
    assert found.upper - found.lower > 0.05


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=50), st.integers(0, 50))
def test_moments_of_two_samples_together(values: list[float], cut: int) -> None:
    parts = [values[:cut], values[cut:]]
    one, other = (Moments.of(len(part), sum(part), sum(value * value for value in part)) for part in parts)
    both = one + other
    assert both.n == len(values)
    assert both.mean == pytest.approx(np.mean(values), abs=1e-6)
    if both.n > 1:
        assert both.variance == pytest.approx(np.var(values, ddof=1), rel=1e-6, abs=1e-4)
