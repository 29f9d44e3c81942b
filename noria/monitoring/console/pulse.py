"""Pulse: how many requests a second the servers answer, and how many fail, from counters that only grow."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import msgspec

from noria.core import NoriaError
from noria.gateway.control import ask
from noria.gateway.operations import ServerStatus

EVERY = 2.0
"""Seconds between two looks."""
_KEPT = 300


@dataclass(frozen=True)
class Rates:
    """Of all servers together, in a second.

    Attributes:
        requests: that were answered.
        failures: answers with a status of 5xx.
        errors: connections that failed, and answers that broke off.
        seconds: the time that this is about.
    """

    requests: float
    failures: float
    errors: float
    seconds: float


@dataclass(frozen=True)
class _Sample:
    at: float
    counts: dict[str, tuple[int, int, int]]


class Pulse:
    """Looks at a gateway's servers now and then.

    Args:
        run_dir: where the gateway runs.
        monotonic: seconds.
    """

    def __init__(self, run_dir: Path, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._run_dir = run_dir
        self._monotonic = monotonic
        self._samples: deque[_Sample] = deque(maxlen=_KEPT)

    def look(self) -> None:
        """Take a sample; none while no gateway answers."""
        try:
            servers = read_servers(self._run_dir)
        except (NoriaError, OSError, ValueError):
            return
        self.add(servers)

    def add(self, servers: Sequence[ServerStatus]) -> None:
        """Take what is known of the servers for a sample."""
        counts = {one.name: (one.proxy.requests, one.proxy.failures, one.proxy.errors) for one in servers if one.proxy}
        self._samples.append(_Sample(self._monotonic(), counts))

    def rates(self, seconds: float = 15.0) -> Rates | None:
        """Over the last so many seconds; None while there are no two samples of that time.

        A counter that has become smaller began anew, as it does when the load balancer is started again.
        """
        since = self._monotonic() - seconds
        samples = [sample for sample in list(self._samples) if sample.at >= since]
        if len(samples) < 2:
            return None
        sums = [0, 0, 0]
        for before, after in pairwise(samples):
            for name, now in after.counts.items():
                was = before.counts.get(name, now)
                was = was if all(a <= b for a, b in zip(was, now, strict=True)) else (0, 0, 0)
                sums = [total + b - a for total, a, b in zip(sums, was, now, strict=True)]
        apart = samples[-1].at - samples[0].at
        requests, failures, errors = (total / apart for total in sums)
        return Rates(requests, failures, errors, apart)


@contextmanager
def beating(pulse: Pulse, every: float = EVERY) -> Iterator[Pulse]:
    """Have a thread look until the block ends."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            pulse.look()
            stop.wait(every)

    thread = threading.Thread(target=work, name="noria-pulse", daemon=True)
    thread.start()
    try:
        yield pulse
    finally:
        stop.set()
        thread.join(5.0)


def read_servers(run_dir: Path) -> list[ServerStatus]:
    """How each server of a gateway is.

    Raises:
        NotFoundError: no gateway runs there.
        GatewayError: it can't say.
    """
    return msgspec.convert(ask(run_dir, "servers"), list[ServerStatus])
