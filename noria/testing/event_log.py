"""What every event log has to do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from noria.core import ConflictError, NotFoundError
from noria.storage.event_log import EventLog, EventReader, Events

PATIENCE = 30.0
"""Seconds that a group may take to divide its partitions."""


def poll_until(reader: EventReader, count: int, seconds: float = PATIENCE) -> list[Events]:
    """Poll until that many events have come."""
    found: list[Events] = []
    deadline = time.monotonic() + seconds
    while sum(map(len, found)) < count and time.monotonic() < deadline:
        found += reader.poll(count - sum(map(len, found)), 0.2)
    return found


def values(found: Sequence[Events]) -> list[bytes]:
    """All values, in the order in which they came."""
    return [value for events in found for value in events.values]


class EventLogConformance:
    """Subclass it and return a log from `log`; `topic` names are new in each test."""

    removes_repeated = True
    """Whether a producer may repeat a batch after a crash."""

    def log(self) -> EventLog:
        """A log; in one test, calls give handles of the same log."""
        raise NotImplementedError

    def test_events_come_in_order_with_offsets_times_and_keys(self, topic: str) -> None:
        log = self.log()
        log.create(topic)
        began = time.time_ns() // 1_000
        assert log.append(topic, [b"a", b"", b"\0\xff" * 1000], [b"k", None, b"\0"]) == 3
        assert log.append(topic, [b"d"]) == 1
        reader = log.reader(topic, "g")
        found = poll_until(reader, 4)
        assert values(found) == [b"a", b"", b"\0\xff" * 1000, b"d"]
        assert [key for events in found for key in events.keys] == [b"k", None, b"\0", None]
        offsets = np.concatenate([events.offsets for events in found])
        assert (np.diff(offsets) > 0).all()
        assert all(began - 5_000_000 < at < began + 60_000_000 for events in found for at in events.times.tolist())
        assert log.bounds(topic)[0][1] >= found[-1].next_offset
        assert reader.poll(10, 0.05) == []
        reader.close()

    def test_topics_are_made_once(self, topic: str) -> None:
        log = self.log()
        log.create(topic, 3)
        log.create(topic, 3)
        assert log.topics()[topic] == 3
        with pytest.raises(ConflictError, match="3 partitions"):
            log.create(topic, 4)
        with pytest.raises(NotFoundError, match="no topic"):
            log.append(topic + "-none", [b"x"])

    def test_a_topic_keeps_its_identity(self, topic: str) -> None:
        log = self.log()
        log.create(topic)
        before = log.identity(topic)
        log.create(topic)
        log.append(topic, [b"a"])
        assert log.identity(topic) == self.log().identity(topic) == before

    def test_one_key_is_one_partition_in_order(self, topic: str) -> None:
        log = self.log()
        log.create(topic, 3)
        for turn in range(5):
            log.append(topic, [b"%d-%d" % (key, turn) for key in range(20)], [b"%d" % key for key in range(20)])
        reader = log.reader(topic, "g")
        found = poll_until(reader, 100)
        places: dict[bytes, set[int]] = {}
        seen: dict[bytes, list[bytes]] = {}
        for events in found:
            for key, value in zip(events.keys, events.values, strict=True):
                assert key is not None
                places.setdefault(key, set()).add(events.partition)
                seen.setdefault(key, []).append(value)
        assert all(len(partitions) == 1 for partitions in places.values())
        assert len({next(iter(partitions)) for partitions in places.values()}) == 3
        assert seen == {b"%d" % key: [b"%d-%d" % (key, turn) for turn in range(5)] for key in range(20)}
        reader.close()

    def test_a_group_goes_on_where_it_committed_and_groups_are_apart(self, topic: str) -> None:
        log = self.log()
        log.create(topic)
        log.append(topic, [b"%d" % number for number in range(10)])
        reader = log.reader(topic, "g")
        found = poll_until(reader, 4)
        reader.commit({0: found[-1].next_offset})
        assert reader.committed() == {0: found[-1].next_offset}
        poll_until(reader, 3)  # read, and not committed
        reader.close()
        again = log.reader(topic, "g")
        assert values(poll_until(again, 6)) == [b"%d" % number for number in range(4, 10)]
        again.seek(0, int(found[0].offsets[1]))
        assert values(poll_until(again, 9)) == [b"%d" % number for number in range(1, 10)]
        again.close()
        other = log.reader(topic, "other")
        assert len(values(poll_until(other, 10))) == 10
        other.close()

    def test_latest_begins_at_the_end(self, topic: str) -> None:
        log = self.log()
        log.create(topic)
        log.append(topic, [b"old", b"older"])
        reader = log.reader(topic, "g", start="latest")
        early = reader.poll(1, 0.5)
        deadline = time.monotonic() + PATIENCE
        while not reader.assigned and time.monotonic() < deadline:
            early += reader.poll(1, 0.2)
        assert values([*early, *reader.poll(1, 0.5)]) == []
        log.append(topic, [b"new"])
        assert values(poll_until(reader, 1)) == [b"new"]
        reader.close()

    def test_any_place_can_be_read(self, topic: str) -> None:
        log = self.log()
        log.create(topic)
        for number in range(0, 100, 10):
            log.append(topic, [b"%d" % n for n in range(number, number + 10)])
        first, end = log.bounds(topic)[0]
        whole = log.read(topic, 0, first, 1000)
        assert len(whole) == 100
        assert whole.next_offset == end
        part = log.read(topic, 0, int(whole.offsets[37]), 5)
        assert part.values == [b"37", b"38", b"39", b"40", b"41"]
        assert len(log.read(topic, 0, end, 5)) == 0
        with pytest.raises(NotFoundError):
            log.read(topic, 7, 0, 1)

    def test_members_divide_the_partitions_and_take_over_from_one_that_leaves(self, topic: str) -> None:
        log = self.log()
        log.create(topic, 4)
        one, two = log.reader(topic, "g"), log.reader(topic, "g")
        told: list[tuple[str, tuple[int, ...]]] = []
        one.on_change(lambda p: told.append(("given", tuple(p))), lambda p: told.append(("taken", tuple(p))))
        self._settle([one, two], lambda: len(one.assigned) == len(two.assigned) == 2)
        assert one.joined
        assert two.joined
        assert sorted((*one.assigned, *two.assigned)) == [0, 1, 2, 3]
        held = {p for what, ps in told if what == "given" for p in ps} - {
            p for w, ps in told if w == "taken" for p in ps
        }
        assert set(one.assigned) <= {p for what, ps in told if what == "given" for p in ps}
        assert not held - {0, 1, 2, 3}
        for partition in two.assigned:
            two.commit({partition: log.bounds(topic)[partition][0]})
        foreign = two.assigned[0]
        with pytest.raises(ConflictError):
            one.commit({foreign: 1})
        two.close()
        self._settle([one], lambda: len(one.assigned) == 4)
        log.append(topic, [b"%d" % n for n in range(40)], [b"%d" % n for n in range(40)])
        assert sorted(values(poll_until(one, 40))) == sorted(b"%d" % n for n in range(40))
        one.close()

    def _settle(self, readers: list[EventReader], done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done() and time.monotonic() < deadline:
            for reader in readers:
                reader.poll(1, 0.1)
        assert done()

    def test_a_reader_wakes_when_events_come(self, topic: str) -> None:
        log = self.log()
        log.create(topic)
        reader = log.reader(topic, "g")
        log.append(topic, [b"first"])
        poll_until(reader, 1)
        timer = threading.Timer(0.3, lambda: log.append(topic, [b"x"]))
        timer.start()
        began = time.monotonic()
        assert values(reader.poll(10, 10.0)) == [b"x"]
        assert time.monotonic() - began < 5
        timer.join()
        reader.close()

    def test_threads_append_at_once_and_nothing_is_lost(self, topic: str) -> None:
        log = self.log()
        log.create(topic, 2)

        def work(number: int) -> None:
            for turn in range(20):
                log.append(topic, [b"%d-%d" % (number, turn)] * 3, [b"%d" % number] * 3)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reader = log.reader(topic, "g")
        found = values(poll_until(reader, 240))
        assert sorted(found) == sorted(b"%d-%d" % (n, t) for n in range(4) for t in range(20) for _ in range(3))
        for number in range(4):
            mine = [int(value.split(b"-")[1]) for value in found if value.startswith(b"%d-" % number)]
            assert mine == sorted(mine)
        reader.close()

    def test_a_batch_that_is_sent_again_is_there_once(self, topic: str) -> None:
        if not self.removes_repeated:
            pytest.skip("this log can't know a batch that another process has sent")
        log = self.log()
        log.create(topic, 2)
        batch, keys = [b"%d" % n for n in range(10)], [b"%d" % n for n in range(10)]
        assert log.append(topic, batch, keys, producer=("p", 1)) == 10
        assert log.append(topic, batch, keys, producer=("p", 1)) == 0
        other = self.log()
        assert other.append(topic, batch, keys, producer=("p", 1)) == 0
        assert other.append(topic, batch, keys, producer=("q", 1)) == 10
        assert other.append(topic, batch, keys, producer=("p", 2)) == 10
        assert log.append(topic, batch, keys, producer=("p", 2)) == 0
