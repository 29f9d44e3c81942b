from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from noria.core.errors import ConfigError
from noria.gateway import OutlierLimits, ServerStatistics, outliers

COUNTS = st.lists(st.tuples(st.integers(0, 200), st.floats(0, 1)), min_size=1, max_size=6)


def counted(*counts: tuple[int, int]) -> dict[str, ServerStatistics]:
    row = ServerStatistics("", "", "UP", 100, 0, 0, 0, 0, 0, 0, "")
    return {f"s{i}": replace(row, name=f"s{i}", requests=n, failures=f) for i, (n, f) in enumerate(counts)}


@given(COUNTS, st.integers(0, 3))
def test_only_servers_that_fail_much_more_than_the_rest(counts: list[tuple[int, float]], ejected: int) -> None:
    limits = OutlierLimits(share=0.4, min_requests=20, max_ejected=0.5)
    rows = [(n, round(n * share)) for n, share in counts]
    found = outliers(counted(*[(0, 0)] * len(rows)), counted(*rows), limits, ejected)
    assert len(found) <= max(0, len(rows) // 2 - ejected)
    for name in found:
        n, failed = rows[int(name[1:])]
        rest = [row for i, row in enumerate(rows) if f"s{i}" != name]
        assert n >= 20
        assert failed / n >= max(0.4, 2 * sum(f for _, f in rest) / sum(n for n, _ in rest))
    shares = [rows[int(name[1:])][1] / rows[int(name[1:])][0] for name in found]
    assert shares == sorted(shares, reverse=True)


def test_when_all_fail_nobody_is_to_blame() -> None:
    none = counted((0, 0), (0, 0), (0, 0))
    assert outliers(none, counted((100, 90), (100, 90), (100, 80)), OutlierLimits()) == []
    assert outliers(none, counted((100, 90), (100, 1), (100, 0)), OutlierLimits()) == ["s0"]


def test_one_server_is_never_an_outlier() -> None:
    assert outliers(counted((0, 0)), counted((100, 100)), OutlierLimits(max_ejected=1.0)) == []


def test_counters_of_a_new_process_begin_anew() -> None:
    before = counted((1000, 0), (1000, 0))
    assert outliers(before, counted((50, 50), (50, 0)), OutlierLimits()) == ["s0"]
    assert outliers(before, counted((1100, 10), (1100, 0)), OutlierLimits()) == []


def test_wrong_limits_are_refused() -> None:
    for wrong in ({"share": 0.0}, {"max_ejected": 1.5}, {"pause": 0.0}, {"min_requests": 0}, {"interval": -1.0}):
        with pytest.raises(ConfigError):
            OutlierLimits(**wrong)  # type: ignore[arg-type]
