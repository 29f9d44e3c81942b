"""Requests of one entity are alike: by simulation, and in small figures."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.monitoring.clusters import design_effect, effective_errors, effective_logarithms
from noria.monitoring.judge import errors, latency
from noria.registry import Judging
from noria.serving.exposures import GROUPS, Group, Tally, tallies_of

ANY = Judging(errors=0.001, latency=1.0)


def served(requests: list[tuple[str, float, bool]]) -> Tally:
    made = Tally()
    for entity, seconds, failed in requests:
        made.add(seconds, failed=failed, entity=entity)
    return made


def test_independent_requests_count_as_many() -> None:
    rng = np.random.default_rng(0)
    for entities in (None, 5_000):
        who = ["" if entities is None else str(user) for user in rng.integers(0, entities or 1, 10_000)]
        tally = served([(user, float(np.exp(rng.normal(-3, 0.5))), bool(rng.random() < 0.02)) for user in who])
        assert effective_errors(tally)[1] > 5_000
        assert effective_logarithms(tally).n > 5_000


def test_an_entity_that_always_fails_is_one() -> None:
    fine = [(str(user % 500), 0.05, False) for user in range(5_000)]
    tally = served([*fine, *[("unlucky", 0.05, True)] * 500])
    failed, requests = effective_errors(tally)
    assert failed / requests == pytest.approx(500 / 5_500)
    assert failed < 3
    everybody = served([(str(user % 500), 0.05, user % 10 == 0) for user in range(5_000)])
    assert effective_errors(everybody)[0] < 500
    spread = served([(str(user), 0.05, user % 10 == 0) for user in range(5_000)])
    assert effective_errors(spread)[0] > 250


def test_what_no_groups_are_known_of_is_taken_as_it_is() -> None:
    assert effective_errors(Tally(100, 10)) == (10, 100)
    assert effective_errors(Tally()) == (0, 0)
    assert effective_logarithms(Tally()).n == 0
    assert design_effect([], [], 0.5, 1.0) == 1.0
    assert effective_errors(served([("one", 0.05, at % 2 == 0) for at in range(100)])) == (0.5, 1.0)
    assert effective_errors(served([("one", 0.05, True)] * 100)) == (100, 100)  # of nothing else anything is known


def look(rng: np.random.Generator, sums: np.ndarray, canary: np.ndarray, group: np.ndarray, weights: np.ndarray,
         fails: np.ndarray, slow: np.ndarray) -> list[Tally]:  # fmt: skip
    """2,000 more requests; the totals of control and canary."""
    who = rng.choice(len(weights), 2_000, p=weights)
    failed = rng.random(2_000) < fails[who]
    logs = np.where(failed, 0.0, slow[who] + rng.normal(0, 0.4, 2_000))
    key = canary[who] * GROUPS + group[who]
    for at, values in enumerate((np.ones(2_000), failed, logs, logs * logs)):
        sums[:, :, at] += np.bincount(key, values, 2 * GROUPS).reshape(2, GROUPS)
    made = []
    for one in sums:
        n, e, total, squares = one.sum(axis=0)
        made.append(Tally(int(n), int(e), total, squares, 0, 0, [Group(int(a), int(b), c) for a, b, c, _ in one]))
    return made


def without_groups(tally: Tally) -> Tally:
    return Tally(*msgspec.structs.astuple(tally)[:-1])


def test_a_few_busy_entities_do_not_make_a_canary_worse() -> None:
    """Traffic by Zipf's law, 1% of the entities always fail, some are always slower: no canary is to blame for any."""
    rng = np.random.default_rng(3)
    weights = 1 / np.arange(1, 5_001)
    weights /= weights.sum()
    experiments, blamed, naive = 60, 0, 0
    for _ in range(experiments):
        canary, group = (rng.random(5_000) < 0.3).astype(int), rng.integers(0, GROUPS, 5_000)
        fails, slow = (rng.random(5_000) < 0.01).astype(float), rng.normal(-3, 0.5, 5_000)
        sums, found, plain = np.zeros((2, GROUPS, 4)), False, False
        for _look in range(10):
            control, tried = look(rng, sums, canary, group, weights, fails, slow)
            both = [question(tried, control, ANY, 0.025) for question in (errors, latency)]
            found = found or any(one.finding == "worse" for one in both)
            raw = without_groups(tried), without_groups(control)
            plain = plain or any(question(*raw, ANY, 0.025).finding == "worse" for question in (errors, latency))
        blamed += found
        naive += plain
    assert blamed / experiments <= 0.05
    assert naive / experiments > 0.25  # requests taken as independent: why they are not


def test_a_broken_canary_is_found_as_soon() -> None:
    rng = np.random.default_rng(4)
    weights = np.full(5_000, 1 / 5_000)
    found = 0
    for _ in range(30):
        canary, group = (rng.random(5_000) < 0.5).astype(int), rng.integers(0, GROUPS, 5_000)
        fails, sums = 0.01 + 0.03 * canary, np.zeros((2, GROUPS, 4))
        for _look in range(4):
            control, tried = look(rng, sums, canary, group, weights, fails, np.full(5_000, -3.0))
            if errors(tried, control, ANY, 0.025).finding == "worse":
                found += 1
                break
    assert found / 30 > 0.9


REQUESTS = st.lists(
    st.tuples(st.sampled_from(["", "ann", "bob", "eve"]), st.floats(1e-5, 10), st.booleans()), max_size=40
)


@given(REQUESTS, REQUESTS)
def test_totals_add_up_and_groups_with_them(
    one: list[tuple[str, float, bool]], two: list[tuple[str, float, bool]]
) -> None:
    first, second = served(one), served(two)
    both = first + second
    assert both.requests == len(one) + len(two)
    for tally in (first, second, both):
        if tally.requests:
            assert sum(group.requests for group in tally.groups) == tally.requests
            assert sum(group.errors for group in tally.groups) == tally.errors
            assert sum(group.log_seconds for group in tally.groups) == pytest.approx(tally.log_seconds)
    left = both - second
    assert (left.requests, left.errors) == (first.requests, first.errors)
    stored = tallies_of(msgspec.json.decode(msgspec.json.encode({"variants": {"a": both}})))
    assert stored == {"a": both}
