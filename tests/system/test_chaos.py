"""Load and faults: a campaign against a real `noria serve`, in which every single request is counted.

What has a fall-back never fails; what hasn't is refused clearly, and nobody else notices. `make soak` runs ten minutes
of it and prints the figures, `make test` a minute.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import pytest
from chaos_acts import Stand, memory
from chaos_faults import ON_REDIS, Fault, faults
from chaos_load import Answer, load
from chaos_project import Redis, kinds, make, noria, plugin, serving, small_disks

from noria.core import Settings
from noria.storage import Workspace

_PATIENCE = 30.0
_QUIET = 1.0


@dataclass(frozen=True)
class Episode:
    """A fault with what came of it.

    Attributes:
        begun, ended: on the monotonic clock.
        recovered: when all replicas were ready again, and nobody was refused any more.
        answers: to requests that ended in that time.
        late: those that were refused because Redis itself was late, though it was no fault of ours.
        stall: the most seconds that Redis took to answer another client: above 0.1 the machine had too much to do.
    """

    fault: Fault
    begun: float
    ended: float
    recovered: float
    answers: Sequence[Answer]
    late: Sequence[Answer]
    stall: float

    @property
    def odd(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status != 200]

    @property
    def wrong(self) -> list[Answer]:
        return [answer for answer in self.odd if not self.fault.may(answer) and answer not in self.late]


def endure(stand: Stand, fault: Fault) -> Episode:
    """Bring a fault about, put it right, and wait until everybody is answered again."""
    place, begun = len(stand.load.answers), time.monotonic()
    fault.begin(stand)
    until, due = time.monotonic() + fault.seconds, time.monotonic() + fault.every
    while (now := time.monotonic()) < until:
        if fault.again is not None and now >= due:
            fault.again(stand)
            due += fault.every
        time.sleep(0.05)
    ended = time.monotonic()
    fault.end(stand)
    whole = 0.0
    while time.monotonic() < ended + _PATIENCE:
        whole = 0.0 if stand.in_vain() else whole or time.monotonic()
        if whole and _is_well(stand):
            break
        time.sleep(0.1)
    answers = stand.load.answers[place:]
    late = [a for a in answers if a.is_clear and a.kind in ON_REDIS - fault.refused and stand.load.was_late(a)]
    bad = [answer.done for answer in answers if answer.status != 200]
    stall = max((seconds for at, seconds in stand.load.pings if at > begun), default=0.0)
    return Episode(fault, begun, ended, max(whole or math.inf, *bad, ended), answers, late, stall)


def _is_well(stand: Stand) -> bool:
    """Whether every kind was answered for a while, and nothing went wrong."""
    since = time.monotonic() - _QUIET
    late = [answer for answer in stand.load.answers[-2000:] if answer.done >= since]
    return {a.kind for a in late} == {kind.name for kind in stand.load.kinds} and {a.status for a in late} == {200}


@contextmanager
def bench(tmp_path: Path, rate: float) -> Iterator[Stand]:
    """The project, served and under load."""
    with ExitStack() as stack:
        stack.enter_context(plugin(tmp_path / "plugin"))
        redis = Redis(tmp_path / "redis")
        stack.callback(redis.stop)
        folder = tmp_path / "project"
        make(folder, redis.url)
        disks = stack.enter_context(small_disks(folder))
        made = json.loads(
            noria(folder, "keys", "create", "load", "--scope", "predict,events", "--rate", "100000/s", "--json")
        )
        port, pid = stack.enter_context(serving(folder, tmp_path / "serve.log"))
        workspace = stack.enter_context(Workspace.open(Settings.load(folder)))
        headers = {"authorization": f"Bearer {made['key']}", "content-type": "application/json"}
        clients = stack.enter_context(load(port, kinds(rate), headers, redis.port))
        yield Stand(folder, pid, redis, clients, workspace, disks)


def _line(answer: Answer, begun: float, fault: Fault) -> str:
    body = answer.body.decode("utf-8", "replace")
    shown = f"{answer.done - begun:7.2f} s  {answer.kind:12} {answer.status:3} after {answer.seconds:.2f} s"
    return f"{shown}  {fault.name}: retry-after {answer.retry_after or '-'} {body[:300]}"


def _quantile(seconds: Sequence[float], percent: int) -> float:
    return quantiles(seconds, n=100)[percent - 1] * 1000 if len(seconds) > 1 else 0.0


def report(episodes: Sequence[Episode], stand: Stand) -> str:
    """The figures, as a table."""
    head = f"{'fault':40}{'requests':>9}{'failed':>8}{'503':>6}{'late':>6}{'resent':>8}{'p50 ms':>8}{'p99 ms':>8}{'recovery s':>12}{'stall s':>9}"
    lines = [head]
    for one in episodes:
        others = [a.seconds for a in one.answers if a.kind not in ("slow", *one.fault.refused) and a.status == 200]
        refused = sum(answer.status == 503 and one.fault.may(answer) for answer in one.odd)
        resent = sum(answer.resent > 0 for answer in one.answers)
        lines.append(
            f"{one.fault.name:40}{len(one.answers):9}{len(one.wrong):8}{refused:6}{len(one.late):6}{resent:8}"
            f"{_quantile(others, 50):8.1f}{_quantile(others, 99):8.1f}{one.recovered - one.ended:12.2f}{one.stall:9.2f}"
        )
    answers = [answer for one in episodes for answer in one.answers]
    span = episodes[-1].answers[-1].done - episodes[0].begun
    lines.append(f"{len(answers)} requests in {span:.0f} s, {len(answers) / span:.0f} a second; p50 and p99 in ms:")
    for kind in stand.load.kinds:
        good = [a.seconds for a in answers if a.kind == kind.name and a.status == 200]
        lines.append(f"  {kind.name:12} {len(good):7} {_quantile(good, 50):7.1f} {_quantile(good, 99):8.1f}")
    counted = Counter((a.kind, a.status, _detail(a)) for one in episodes for a in one.odd)
    lines += [f"  {count:5} x {kind} {status}: {what}" for (kind, status, what), count in counted.most_common(25)]
    for pid, sizes in stand.sizes.items():
        lines.append(f"memory of replica {pid}: {sizes[0]:.0f} to {sizes[-1]:.0f} MB in {len(sizes)} faults")
    return "\n".join([*lines, *stand.notes])


def _detail(answer: Answer) -> str:
    try:
        detail = str(json.loads(answer.body)["detail"])
    except (ValueError, LookupError):
        detail = answer.body[:160].decode("utf-8", "replace")
    return "".join("#" if letter.isdigit() else letter for letter in detail)[:160]


def campaign(stand: Stand, rounds: Iterator[Fault], over: Callable[[], bool]) -> list[Episode]:
    episodes: list[Episode] = []
    try:
        for fault in rounds:
            episodes.append(one := endure(stand, fault))
            for answer in (answer for answer in one.odd if not answer.is_clear or answer in one.wrong):
                print(_line(answer, episodes[0].begun, fault), file=sys.stderr, flush=True)
            for pid in stand.replicas().values():
                stand.sizes.setdefault(pid, []).append(memory(pid))
            if over():
                break
    finally:
        if episodes:
            print("\n" + report(episodes, stand), file=sys.stderr, flush=True)
    return episodes


def check(stand: Stand, episodes: Sequence[Episode]) -> None:
    """What is promised."""
    assert [(one.fault.name, answer) for one in episodes for answer in one.wrong] == []
    assert [one.fault.name for one in episodes if math.isinf(one.recovered)] == []
    assert stand.in_vain() == []
    assert stand.rollbacks
    assert [pid for pid, sizes in stand.sizes.items() if sizes[-1] > sizes[0] + 50] == []
    for one in episodes:
        others = [a.seconds for a in one.answers if a.kind not in ("slow", *one.fault.refused)]
        # Far above what it takes on a busy machine, far below what waiting for a dead peer takes.
        assert _quantile(others, 50) < 500, one.fault.name


def check_events(stand: Stand, answers: Sequence[Answer]) -> None:
    """Each event that was taken is in the log once."""
    log = stand.workspace.log
    kept = [
        json.loads(value)["n"]
        for topic in log.topics()
        for partition, (first, end) in log.bounds(topic).items()
        for value in log.read(topic, partition, first, end - first).values
    ]
    assert len(kept) == len(set(kept))
    assert len(kept) >= sum(answer.kind == "events" and answer.status == 200 for answer in answers)


def test_a_minute_of_faults(tmp_path: Path) -> None:
    with bench(tmp_path, rate=0.5) as stand:
        episodes = campaign(stand, iter(faults(long=False)), lambda: False)
        check(stand, episodes)
        check_events(stand, [answer for one in episodes for answer in one.answers])


@pytest.mark.soak
def test_ten_minutes_of_faults(tmp_path: Path) -> None:
    with bench(tmp_path, rate=1.0) as stand:
        end = time.monotonic() + 600

        def rounds() -> Iterator[Fault]:
            while True:
                yield from faults(long=True)

        episodes = campaign(stand, rounds(), lambda: time.monotonic() > end)
        check(stand, episodes)
        assert max(stand.rollbacks) < 2.0
        check_events(stand, [answer for one in episodes for answer in one.answers])
