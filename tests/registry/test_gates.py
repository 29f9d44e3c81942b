"""Gates on evidence alone: what passes, what doesn't, and what can't be judged."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import noria as nr
from noria.core import ConfigError
from noria.registry import Evidence, Gate
from noria.registry.evidence import Gain, refusal
from noria.registry.gates import gate_from_dict


def known(label: str = "late@2", **more: Any) -> Evidence:
    return Evidence(label, **{"rows": "100 rows", "lower": frozenset({"rmse"}), **more})


def of(value: float, rows: int = 500, metric: str = "f1") -> dict[str, Any]:
    return {"rows": rows, metric: {"value": value}}


def interval(low: float, high: float) -> Gain:
    def gain(metric: str, column: str = "", value: str = "") -> tuple[float, float]:
        return low, high

    return gain


def test_better_than_the_champion() -> None:
    gate = nr.better("roc_auc", by=0.002)
    champion = known("late@1", metrics={"roc_auc": 0.7})
    said = gate.judge(known(metrics={"roc_auc": 0.7021}), champion)
    assert said.passed
    assert said.why == "0.7021 against 0.7000 of late@1, on 100 rows"
    assert gate.judge(known(metrics={"roc_auc": 0.7019}), champion).passed is False
    assert nr.better("rmse").judge(known(metrics={"rmse": 2.0}), known(metrics={"rmse": 2.1})).passed
    assert nr.better("rmse").judge(known(metrics={"rmse": 2.1}), known(metrics={"rmse": 2.1})).passed is False
    assert gate.judge(known(metrics={"roc_auc": 0.1}), None).passed  # somebody has to be the first


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 0.5))
def test_no_two_versions_are_better_than_each_other(one: float, other: float, by: float) -> None:
    for name in ("f1", "rmse"):
        a, b = known("a@1", metrics={name: one}), known("a@2", metrics={name: other})
        gate = nr.better(name, by=by)
        assert not (gate.judge(a, b).passed and gate.judge(b, a).passed)


def test_better_for_sure_needs_the_whole_interval_of_the_gain() -> None:
    gate, champion = nr.better("f1", by=0.01, sure=True), known("late@1", metrics={"f1": 0.5})
    assert gate.judge(known(metrics={"f1": 0.6}, gain=interval(0.02, 0.2)), champion).passed
    said = gate.judge(known(metrics={"f1": 0.6}, gain=interval(-0.02, 0.2)), champion)
    assert said.passed is False
    assert "-0.0200 at the low end" in said.why
    assert gate.judge(known(metrics={"f1": 0.6}, intervals={"f1": (0.52, 0.7)}), champion).passed
    unknown = gate.judge(known(metrics={"f1": 0.6}), champion)
    assert unknown.passed is None
    assert str(unknown).startswith("better in f1 by 0.01 for sure: not judged: ")


def test_no_slice_is_worse() -> None:
    gate = nr.no_slice_worse("f1", by=0.02, columns=["country"], rows=200)
    champion = known("late@1", slices={"country": {"at": of(0.8), "de": of(0.8), "li": of(0.9, rows=12)}})
    fine = known(slices={"country": {"at": of(0.781), "de": of(0.9), "li": of(0.1, rows=12), "us": of(0.1)}})
    assert gate.judge(fine, champion).passed
    worse = gate.judge(known(slices={"country": {"at": of(0.75), "de": of(0.6)}}), champion)
    assert worse.passed is False
    assert worse.why == "country de: 0.6000 against 0.8000 (500 rows); country at: 0.7500 against 0.8000 (500 rows)"
    slices = {"country": {"at": of(0.75), "de": of(0.9)}}
    assert gate.judge(known(slices=slices, gain=interval(-0.2, -0.01)), champion).passed is False
    chance = gate.judge(known(slices=slices, gain=interval(-0.2, 0.01)), champion)
    assert chance.passed
    assert chance.why.endswith("; 1 worse within chance")
    lower = nr.no_slice_worse("rmse", columns="country")
    two = [known(slices={"country": {"at": of(v, metric="rmse")}}) for v in (1.0, 2.0)]
    assert (lower.judge(two[0], two[1]).passed, lower.judge(two[1], two[0]).passed) == (True, False)
    for column in (["county"], []):
        said = nr.no_slice_worse("f1", columns=column).judge(known(), champion)
        assert said.passed is None
        assert "has no slices" in said.why
    assert gate.judge(known(slices={"country": {"li": of(0.1, rows=12)}}), champion).passed is None


def test_limits_latency_and_size() -> None:
    assert nr.at_least("f1", 0.5).judge(known(metrics={"f1": 0.5}), None).passed
    assert nr.at_most("rmse", 3).judge(known(metrics={"rmse": 3.1}), None).passed is False
    assert nr.at_most("rmse", 3).judge(known(missing={"metrics": "no rows"}), None).passed is None
    assert nr.latency_under("5ms").judge(known(latency=0.004), None).passed
    assert nr.latency_under("0.5ms").judge(known(latency=0.004), None).passed is False
    assert nr.latency_under("5ms").judge(known(), None).passed is None
    assert nr.size_under("50MB").judge(known(size=49_999_999), None).passed
    said = nr.size_under("800kB").judge(known(size=2_000_000), None)
    assert str(said) == "size under 800 kB: 2 MB"


def test_what_is_not_judged_opens_no_gate() -> None:
    verdicts = [nr.size_under("1MB").judge(known(size=1), None), nr.latency_under("1s").judge(known(), None)]
    assert refusal(verdicts) == "latency under 1000 ms: not judged: it wasn't measured"
    assert refusal(verdicts[:1]) == ""


@pytest.mark.parametrize(
    "gate",
    [
        nr.better("f1", by=0.1, sure=True),
        nr.at_least("f1", 0.2),
        nr.at_most("rmse", 2),
        nr.no_slice_worse("f1", by=0.1, columns=["a", "b"]),
        nr.latency_under("5ms"),
        nr.size_under("1.5GiB"),
    ],
)
def test_gates_are_kept(gate: Gate) -> None:
    assert isinstance(gate, Gate)
    assert gate_from_dict(gate.to_dict()) == gate


def test_mistakes_say_what_is_allowed() -> None:
    for make, said in [
        (lambda: nr.better("f1", by=-1), "write a number from 0"),
        (lambda: nr.at_least("f1", float("nan")), "nan is no bound of a metric"),
        (lambda: nr.at_most("rmse", "3"), "'3' is no bound of a metric"),  # type: ignore[arg-type]
        (lambda: nr.latency_under("5"), "units: us, ms, s"),
        (lambda: nr.latency_under("0ms"), "is no latency"),
        (lambda: nr.size_under("5 megs"), "50MB"),
        (lambda: gate_from_dict({"gate": "bettter"}), "did you mean 'better'"),
    ]:
        with pytest.raises(ConfigError) as caught:
            make()
        assert said in str(caught.value)
