"""Serving beside its peers: one row, looked-up features, candidates, a forest, and the load balancer."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from benchmarks.measure import markdown
from benchmarks.serving import balancers, example, lookups, one_row, trees
from benchmarks.serving.contestant import ASKED, Contestant
from benchmarks.serving.environments import PACKAGES, peer
from benchmarks.serving.loads import CONNECTIONS, Closed, Open, install_wrk
from benchmarks.serving.rounds import Found, LoadOf, compete
from benchmarks.serving.tables import speed, startup

ROUNDS, SECONDS = 3, 3.0
RATE, SLOW_RATE, CANDIDATES_RATE, BALANCED_RATE = 100, 50, 10, 500
"""Requests a second of the open loop: what the slowest peer of a section can bear on a slow day."""
PARTS = ("one-row", "lookups", "candidates", "forest", "balancers")
"""The sections, by name."""


def run(rounds: int = ROUNDS, seconds: float = SECONDS, parts: Sequence[str] = PARTS) -> str:
    """All sections; fewer rounds and seconds give a quick look."""
    install_wrk()
    before = signal.signal(signal.SIGTERM, _stop)  # so that what was started is ended
    try:
        with tempfile.TemporaryDirectory(prefix="noria-bench-") as folder:
            made = example.make(Path(folder))
            return "\n\n".join([_SECTIONS[part](made, rounds, seconds) for part in parts])
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(*_: int | FrameType | None) -> NoReturn:
    raise SystemExit("ended by SIGTERM")


def _measure(
    sides: tuple[Contestant, list[Contestant]], rounds: int, seconds: float, rate: float, core: int | None = 0
) -> dict[str, Found]:
    client = None if core is None else 1
    loads: dict[str, LoadOf] = {
        "many": Closed(CONNECTIONS, seconds, client),
        "one": Closed(1, seconds, client),
        "open": Open(rate, 2 * seconds, client),
    }
    return compete(*sides, loads, rounds=rounds, core=core)


def _one_row(made: example.Example, rounds: int, seconds: float) -> str:
    found = _measure(one_row.contestants(made), rounds, seconds, RATE)
    versions = "; ".join(f"{name}: {peer(name).versions()}" for name in PACKAGES if name != "feast")
    note = (
        f"A logistic regression on {example.FEW} floats. Each server is on core 0, the client on core 1, Python servers "
        "with one worker. The bare protocol decodes, multiplies and encodes the same with httptools, msgspec and NumPy on "
        "uvloop, and checks, counts and logs nothing. noria and FastAPI get the row as an object with names and answer "
        "with class and probability; the others get it as an array in their own dialect and answer with the probability "
        "(MLflow: the class). noria always batches what arrives in one turn of its loop; FastAPI, MLflow and KServe's "
        "Python server don't batch (KServe's batcher is a container of its own in Kubernetes). Batches: at most "
        f"{one_row.BATCH}, waiting for at most 1 ms, BentoML's by its own adaptive rule. "
    )
    title = "One row over HTTP"
    return "\n\n".join(
        [speed(title, found, RATE, note + _rules(rounds, seconds, RATE) + f" {versions}."), startup(found, rounds)]
    )


def _lookups(made: example.Example, rounds: int, seconds: float) -> str:
    found = _measure(lookups.contestants(made), rounds, seconds, SLOW_RATE)
    note = (
        f"One of {example.USERS:,} entities, {example.FEW} features, then the logistic regression. noria reads LMDB in its "
        "process; the FastAPI app asks Feast's own feature server (aiohttp, kept connections), or Feast in its process. "
    )
    note += _rules(rounds, seconds, SLOW_RATE) + f" {peer('feast').versions()}."
    return speed("Features looked up, then predicted with", found, SLOW_RATE, note)


def _candidates(made: example.Example, rounds: int, seconds: float) -> str:
    title = f"{example.CANDIDATES} candidates in one request"
    if not made.has_trees:
        return f"## {title}\n\nNot measured: noria's own environment has no LightGBM (pip install lightgbm)."
    found = _measure(trees.candidates(made), rounds, seconds, CANDIDATES_RATE)
    size = len(trees.candidates(made)[0].bodies[0]) / 1000
    note = (
        f"LightGBM with {example.TREES} trees on one thread; {example.CANDIDATES} × {example.MANY} floats as objects with "
        f"names, {size:,.0f} kB of JSON, to both. "
    )
    note += _rules(rounds, seconds, CANDIDATES_RATE)
    return speed(title, found, CANDIDATES_RATE, note)


def _forest(made: example.Example, rounds: int, seconds: float) -> str:
    found = _measure(trees.forest(made), rounds, seconds, SLOW_RATE)
    note = f"A random forest of {example.FOREST} trees on {example.FEW} floats, without a limit of depth. "
    table = markdown(
        "Trees without a server",
        ("call", "p50 µs", "p99 µs"),
        trees.calls(made, max(20, round(100 * seconds))),
        f"In process on one thread. {peer('fastapi').versions()}.",
    )
    note += _rules(rounds, seconds, SLOW_RATE)
    return "\n\n".join([speed("One row through a forest", found, SLOW_RATE, note), table])


def _balancers(made: example.Example, rounds: int, seconds: float) -> str:
    found = _measure(balancers.contestants(made), rounds, seconds, BALANCED_RATE, core=None)
    note = (
        "The logistic regression. noria is its supervisor with two replicas behind HAProxy; bare is a configuration of a "
        "dozen lines. All and the client on the same two cores. (Envoy: no package on PyPI or in Debian.) "
    )
    note += _rules(rounds, seconds, BALANCED_RATE) + f" {balancers.versions()}."
    return speed("Through a load balancer", found, BALANCED_RATE, note)


def _rules(rounds: int, seconds: float, rate: float) -> str:
    return (
        f"Every peer is measured right after noria (in every other round before), {rounds} rounds of {seconds:g} s, who "
        "isn't measured is frozen; the figures are medians, the ratio is the median of neighbours'. Of each server the "
        f"answers to {ASKED} requests are compared with the model's own before. wrk is a closed loop; open means "
        f"{rate:g} requests a second that are due at random, clocks running from when each was due (a client of ours)."
    )


_SECTIONS: dict[str, Callable[[example.Example, int, float], str]] = {
    "one-row": _one_row,
    "lookups": _lookups,
    "candidates": _candidates,
    "forest": _forest,
    "balancers": _balancers,
}
