from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from noria.core import IntegrityError, StorageError
from noria.storage.event_log import EventLog
from noria.storage.partition_writer import Limits
from noria.storage.segment_log import SegmentLog
from noria.testing import ManualClock
from noria.testing.event_log import EventLogConformance, poll_until, values


@pytest.fixture
def topic() -> str:
    return "events"


class TestSegmentLog(EventLogConformance):
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path

    def log(self) -> EventLog:
        return SegmentLog(self.folder)


def test_a_topic_that_was_made_anew_is_another(tmp_path: Path) -> None:
    seen = set()
    for _ in range(2):
        log = SegmentLog(tmp_path / "log")
        log.create("t")
        seen.add(log.identity("t"))
        log.close()
        shutil.rmtree(tmp_path / "log")
    assert len(seen) == 2
    assert "" not in seen


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def everything(log: EventLog) -> list[bytes]:
    start, _ = log.bounds("t")[0]
    return list(log.read("t", 0, start, 1_000_000).values)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_a_crash_left_of_a_write_is_never_seen_and_cut_off(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    log = SegmentLog(folder)
    log.create("t")
    sizes = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    ends, sent, file = [0], 0, folder / "t" / "0" / f"{0:020d}.events"
    for size in sizes:
        log.append("t", numbers(size, sent), [b"k"] * size if size % 2 else None)
        sent += size
        ends.append(file.stat().st_size)
    log.close()
    cut = data.draw(st.integers(0, ends[-1]))
    garbage = data.draw(st.binary(max_size=40))
    file.write_bytes(file.read_bytes()[:cut] + garbage)
    whole = sum(size for size, end in zip(sizes, ends[1:], strict=True) if end <= cut)
    again = SegmentLog(folder)
    assert everything(again) == numbers(whole)
    assert again.bounds("t")[0] == (0, whole)
    again.append("t", [b"new"])
    assert everything(again) == [*numbers(whole), b"new"]
    assert file.stat().st_size < ends[-1] + 200
    again.close()


def test_segments_are_closed_and_removed_and_readers_go_on(tmp_path: Path) -> None:
    clock = ManualClock(int(time.time() * 1_000_000))
    log = SegmentLog(tmp_path, Limits(segment_bytes=2_000, keep_bytes=6_000), clock)
    log.create("t")
    reader = log.reader("t", "g")
    assert values(poll_until(reader, 0, 0.1)) == []
    log.append("t", numbers(100), producer=("p", 1))
    first = reader.poll(10, 1.0)
    assert values(first) == numbers(10)
    for start in range(100, 3000, 100):
        log.append("t", numbers(100, start), producer=("p", start))
    start, end = log.bounds("t")[0]
    assert end == 3000
    assert 0 < start < 3000
    assert sum(file.stat().st_size for file in (tmp_path / "t" / "0").glob("*.events")) < 9_000
    rest = poll_until(reader, 10_000, 1.5)  # the rest of the removed segment, which it has open, too
    assert values(rest)[-(3000 - start) :] == numbers(3000 - start, start)
    assert log.read("t", 0, 0, 1).values == [b"%d" % start]
    assert SegmentLog(tmp_path).append("t", [b"x"], producer=("p", 2900)) == 0  # known, though the segment is new
    clock.advance(10_000_000)
    aged = SegmentLog(tmp_path, Limits(segment_bytes=1_000, keep_seconds=5), clock)
    aged.append("t", numbers(100))
    aged.append("t", numbers(100))
    assert len(list((tmp_path / "t" / "0").glob("*.events"))) <= 2
    reader.close()


def test_damage_in_the_middle_is_named_and_nothing_is_skipped(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path, Limits(segment_bytes=1_000))
    log.create("t")
    for start in range(0, 1000, 100):
        log.append("t", numbers(100, start))
    file = sorted((tmp_path / "t" / "0").glob("*.events"))[1]
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=f"{file}, byte"):
        everything(SegmentLog(tmp_path))


def test_a_full_disk_leaves_the_log_whole(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    log.create("t")
    log.append("t", numbers(10))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(StorageError, match="can't be used") as caught:
            log.append("t", [b"x" * 5_000])
        assert "disk isn't full" in caught.value.hint
        log.append("t", [b"small"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    log.append("t", numbers(5))
    assert everything(log) == [*numbers(10), b"small", *numbers(5)]


APPENDER = """
import sys
from noria.storage.segment_log import SegmentLog
log, name = SegmentLog(sys.argv[1]), sys.argv[2]
start = int(sys.argv[3])
print("ready", flush=True)
for turn in range(start, int(sys.argv[4])):
    log.append("t", [b"%s-%d-%d" % (name.encode(), turn, n) for n in range(50)], producer=(name, turn))
    print(turn, flush=True)
"""


def test_processes_append_at_once_and_some_are_killed(tmp_path: Path) -> None:
    log, turns, chance = SegmentLog(tmp_path, Limits(segment_bytes=20_000)), 60, random.Random(3)
    log.create("t")
    kills = 0
    starts = dict.fromkeys("abc", 0)
    while any(start < turns for start in starts.values()):
        children = {
            name: subprocess.Popen(
                [sys.executable, "-c", APPENDER, str(tmp_path), name, str(start), str(turns)], stdout=subprocess.PIPE
            )
            for name, start in starts.items()
            if start < turns
        }
        victim = chance.choice(sorted(children)) if kills < 4 else None
        for child in children.values():
            assert child.stdout is not None
            child.stdout.readline()
        if victim is not None:
            time.sleep(chance.random() * 0.04)
            os.kill(children[victim].pid, signal.SIGKILL)
            kills += 1
        for name, child in children.items():
            assert child.stdout is not None
            said = child.stdout.read().split()
            child.wait()
            # What it was told is there; the batch after that may or may not be: it is sent again.
            starts[name] = int(said[-1]) + 1 if said else starts[name]
            child.stdout.close()
    found = everything(log)
    for name in "abc":
        mine = [value for value in found if value.startswith(name.encode())]
        assert mine == [b"%s-%d-%d" % (name.encode(), turn, n) for turn in range(turns) for n in range(50)]


READER = """
import sys
from noria.storage.segment_log import SegmentLog
reader = SegmentLog(sys.argv[1]).reader("t", "g")
while True:
    for events in reader.poll(100, 1.0):
        pass
    print(*reader.assigned, flush=True)
"""


def test_a_killed_members_partitions_are_taken_over(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    log.create("t", 4)
    reader = log.reader("t", "g")
    with subprocess.Popen([sys.executable, "-c", READER, str(tmp_path)], stdout=subprocess.PIPE) as child:
        deadline = time.monotonic() + 20
        while len(reader.assigned) != 2 and time.monotonic() < deadline:
            reader.poll(1, 0.1)
        time.sleep(0.5)
        reader.poll(1, 0.3)
        assert len(reader.assigned) == 2
        child.kill()
    while len(reader.assigned) != 4 and time.monotonic() < deadline:
        reader.poll(1, 0.1)
    assert len(reader.assigned) == 4
    reader.close()


def test_damage_in_the_newest_segment_is_not_taken_for_an_unfinished_write(tmp_path: Path) -> None:
    log = SegmentLog(tmp_path)
    log.create("t")
    for start in range(0, 300, 100):
        log.append("t", numbers(100, start))
    file = next((tmp_path / "t" / "0").glob("*.events"))
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    assert log.read("t", 0, 0, 100).values == numbers(100)
    for damaged in (lambda: everything(SegmentLog(tmp_path)), lambda: SegmentLog(tmp_path).append("t", [b"x"])):
        with pytest.raises(IntegrityError, match="damaged"):
            damaged()
    assert file.read_bytes() == bytes(data)
