"""Rounds: each contestant is measured in turn with the reference, the one right after the other.

A machine drifts by a factor of up to three between minutes, but little between neighbouring seconds: what counts is
the median of the ratios of neighbours. Who isn't measured is frozen meanwhile.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from benchmarks.http import Load
from benchmarks.serving.contestant import CannotServeError, Contestant
from benchmarks.serving.loads import Closed
from benchmarks.serving.processes import Running, running, settle

LoadOf = Callable[[str, bytes], Load]
TRIES = 2
"""A contestant that couldn't be measured so often is let be."""
WARM_UP = Closed(connections=8, seconds=2)


@dataclass
class Found:
    """What is known of a contestant.

    Attributes:
        loads: by the name of the load.
        faster: the reference's requests a second ÷ its own, of neighbours, by the name of the load.
        starts: seconds to the first right answer.
        pss: MiB after the loads.
        failed: rounds in which it couldn't be measured.
        why: of the last one of them.
    """

    loads: dict[str, list[Load]] = field(default_factory=dict)
    faster: dict[str, list[float]] = field(default_factory=dict)
    starts: list[float] = field(default_factory=list)
    pss: list[float] = field(default_factory=list)
    failed: int = 0
    why: str = ""

    @property
    def errors(self) -> int:
        """Answers other than 200, and lost requests, in all loads."""
        return sum(load.errors for loads in self.loads.values() for load in loads)

    def middle(self, load: str, what: str) -> float:
        """The median of `rate`, `p50` or `p99`."""
        return float(median(getattr(one, what) for one in self.loads[load]))


def compete(
    reference: Contestant,
    others: Sequence[Contestant],
    loads: Mapping[str, LoadOf],
    *,
    rounds: int,
    core: int | None = 0,
) -> dict[str, Found]:
    """Measure everybody, by name; the order is turned round in every other round.

    Args:
        reference: who is measured with everybody.
        others: everybody else.
        loads: by name.
        rounds: how often.
        core: the servers' (None: any).

    Raises:
        CannotServeError: the reference can't be measured.
    """
    found = {one.name: Found() for one in (reference, *others)}
    for turn in range(rounds):
        with _off_core(core), running(reference, core) as first:
            WARM_UP(first.url, reference.bodies[0])
            for other in others if turn % 2 == 0 else reversed(others):
                if found[other.name].failed == TRIES:
                    continue
                print(f"round {turn + 1}: {other.name}", flush=True)
                try:
                    _duel(first, other, loads, found, core, other_first=turn % 2 == 1)
                except CannotServeError as error:
                    found[other.name].why = str(error)
                    found[other.name].failed += 1
            found[reference.name].starts.append(first.start_seconds)
            found[reference.name].pss.append(first.family.pss_mib())
    return found


def _duel(
    first: Running,
    other: Contestant,
    loads: Mapping[str, LoadOf],
    found: dict[str, Found],
    core: int | None,
    *,
    other_first: bool,
) -> None:
    with contextlib.ExitStack() as stack:
        with _frozen(first):
            second = stack.enter_context(running(other, core))
            WARM_UP(second.url, other.bodies[0])
        order = (second, first) if other_first else (first, second)
        mine, its = found[first.contestant.name], found[other.name]
        for name, load in loads.items():
            rates = {}
            for one in order:
                with _frozen(second if one is first else first):
                    settle(one)
                    measured = load(one.url, one.contestant.bodies[0])
                (mine if one is first else its).loads.setdefault(name, []).append(measured)
                rates[one] = measured.rate
            its.faster.setdefault(name, []).append(rates[first] / max(rates[second], 1e-9))
        its.starts.append(second.start_seconds)
        its.pss.append(second.family.pss_mib())


@contextlib.contextmanager
def _frozen(one: Running) -> Iterator[None]:
    one.family.freeze()
    try:
        yield
    finally:
        one.family.thaw()


@contextlib.contextmanager
def _off_core(core: int | None) -> Iterator[None]:
    """Keep this process, which asks whether a server is ready, off the servers' core."""
    before = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, before - {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
