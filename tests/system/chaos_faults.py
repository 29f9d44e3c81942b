"""The faults of a campaign: how each begins and ends, and who may be refused meanwhile."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import partial

import chaos_acts as acts
from chaos_acts import Act, each, nothing, tell
from chaos_load import Answer

ON_REDIS = frozenset({"redis", "features"})
"""Who has no answer without Redis."""


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, or that an operator does.

    Attributes:
        name: of it.
        begin, end: bring it about, and put it right.
        seconds: how long it lasts.
        again: done every `every` seconds meanwhile.
        refused: the kinds of requests that may get a clear 503 meanwhile.
        resets: whether connections may be cut, so that what was in flight has no answer.
    """

    name: str
    begin: Act = nothing
    end: Act = nothing
    seconds: float = 3.0
    again: Act | None = None
    every: float = 1.0
    refused: frozenset[str] = frozenset()
    resets: bool = False

    def may(self, answer: Answer) -> bool:
        """Whether an answer that is no 200 is what has to be expected."""
        return (answer.is_clear and answer.kind in self.refused) or (answer.status == 0 and self.resets)


def faults(long: bool) -> list[Fault]:
    """One round: each lasts as its `seconds` say, or is short."""
    outage = 10.0 if long else 2.0
    signal_redis = lambda number: lambda stand: stand.redis.send(number)  # noqa: E731
    hang, go_on = signal_redis(signal.SIGSTOP), signal_redis(signal.SIGCONT)
    short = [
        Fault("nothing"),
        Fault("champions to and fro", acts.to_and_fro, partial(acts.champion, 1), outage, acts.to_and_fro, 0.7),
        Fault("canary, stepped and aborted", partial(acts.canary, 2), acts.abort, 12.0 if long else 2.0),
        Fault("canary that crashes", partial(acts.canary, 3), acts.abort, 8.0 if long else 2.0),
        Fault("champion that can't be loaded", partial(acts.champion, 4), partial(acts.champion, 1), outage / 2),
        Fault("rollback", acts.roll_back, partial(acts.champion, 1), 0.5),
        Fault("registry locked", acts.lock_records, acts.undo, outage),
        Fault("registry away", acts.take_records_away, acts.bring_records_back, outage),
        Fault("registry read-only", acts.protect_records, acts.release_records, outage / 2),
        Fault("Redis stopped", lambda s: s.redis.stop(), lambda s: s.redis.start(), outage, refused=ON_REDIS),
        Fault("Redis hangs", hang, go_on, outage, refused=ON_REDIS),
        Fault("disks of the logs full", acts.fill_disks, acts.free_disks, outage),
        Fault("bursts for a slow model", acts.burst, acts.calm, outage / 2 + 2.0, refused=frozenset({"slow"})),
        Fault("replicas killed", acts.kill_a_replica, nothing, 20.0 if long else 2.5, acts.kill_a_replica, 5.0),
        Fault("HAProxy killed", acts.kill_haproxy, nothing, 2.0, resets=True),
        Fault("HAProxy reloaded", tell("reload"), nothing, 1.0, tell("reload"), 1.0),
    ]
    if not long:
        return short
    return [
        *short,
        Fault("replicas killed, champions to and fro", each(acts.kill_a_replica, acts.to_and_fro),
              partial(acts.champion, 1), 20.0, each(acts.kill_a_replica, acts.to_and_fro), 5.0),
        Fault("weights changed", acts.weigh, acts.weigh_evenly, 6.0, acts.weigh, 1.0),
        Fault("scaled up and down", tell("scale", minimum=3), tell("scale", minimum=2), 3.0),
        Fault("restarted", tell("restart"), nothing, 1.0),
        Fault("Redis hangs, replica killed", each(hang, acts.kill_a_replica), go_on, outage, refused=ON_REDIS),
        Fault("Redis stopped, replica killed", each(lambda s: s.redis.stop(), acts.kill_a_replica),
              lambda s: s.redis.start(), outage, refused=ON_REDIS),
        Fault("registry locked, replica killed", each(acts.lock_records, acts.kill_a_replica), acts.undo, outage),
        Fault("registry away, replica killed", each(acts.take_records_away, acts.kill_a_replica), acts.bring_records_back, outage),
        Fault("registry read-only, replica killed", each(acts.protect_records, acts.kill_a_replica), acts.release_records, outage),
        Fault("disks full, replica killed", each(acts.fill_disks, acts.kill_a_replica), acts.free_disks, outage),
    ]  # fmt: skip
