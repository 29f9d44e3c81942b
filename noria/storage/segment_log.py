"""The embedded event log: a folder, shared by any number of processes on one machine, without a server."""

from __future__ import annotations

import os
import random
import re
import secrets
import threading
import time
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from noria.core import Clock, ConfigError, ConflictError, NotFoundError, StorageError, SystemClock, allowed
from noria.storage import segments
from noria.storage.event_log import Change, Events
from noria.storage.log_groups import Group
from noria.storage.partition_writer import Limits, PartitionWriter
from noria.storage.segments import Batch, segment_files

_NAME = re.compile(r"[A-Za-z0-9._-]{1,200}")
_LOOK_SECONDS = 0.2
"""How often a reader looks who else is in its group."""


class SegmentLog:
    """`EventLog` in the folder `path`, which is made when it is missing."""

    def __init__(self, path: Path | str, limits: Limits | None = None, clock: Clock | None = None) -> None:
        self._path = Path(path)
        self._limits = limits or Limits()
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._writers: dict[tuple[str, int], PartitionWriter] = {}
        self._partitions: dict[str, int] = {}
        self._ends: dict[tuple[str, int], tuple[int, int, int]] = {}
        self._turn = random.randrange(1 << 30)

    def create(self, topic: str, partitions: int = 1) -> None:
        if not _NAME.fullmatch(topic) or partitions < 1:
            raise ConfigError(f"a topic {topic!r} with {partitions} partitions", hint="letters, digits, . _ - and 1 up")
        folder = self._path / topic
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(partitions):
                (folder / str(number)).mkdir(exist_ok=True)
            aside = folder / f"topic.{os.getpid()}.{threading.get_ident()}.new"
            with aside.open("wb") as stream:
                stream.write(msgspec.json.encode({"partitions": partitions, "id": secrets.randbits(62)}))
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(aside, folder / "topic.json")  # of two that make it at once, one does
            except FileExistsError:
                pass
            finally:
                aside.unlink()
        except OSError as error:
            raise self._error(error) from error
        present = self._count(topic)
        if present != partitions:
            raise ConflictError(
                f"topic {topic!r} has {present} partitions, not {partitions}",
                hint="events with one key must stay in one partition: make a new topic, and copy the events",
            )

    def topics(self) -> dict[str, int]:
        try:
            names = sorted(file.parent.name for file in self._path.glob("*/topic.json"))
        except OSError as error:
            raise self._error(error) from error
        return {name: self._count(name) for name in names}

    def append(
        self,
        topic: str,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None = None,
        *,
        producer: tuple[str, int] | None = None,
        durable: bool = True,
    ) -> int:
        partitions = self._count(topic)
        if not values:
            return 0
        if sum(map(len, values)) > segments.MAX_BATCH:
            raise ConfigError(f"a batch of {len(values)} events has more than 1 GiB", hint="send it in parts")
        try:
            if partitions == 1:
                return self._writer(topic, 0).append(values, keys, producer, durable)
            written = 0
            for number, places in self._divided(values, keys, partitions, producer):
                part = [values[place] for place in places]
                part_keys = None if keys is None else [keys[place] for place in places]
                written += self._writer(topic, number).append(part, part_keys, producer, durable)
            return written
        except OSError as error:
            raise self._error(error) from error

    def _divided(
        self,
        values: Sequence[bytes],
        keys: Sequence[bytes | None] | None,
        partitions: int,
        producer: tuple[str, int] | None,
    ) -> list[tuple[int, list[int]]]:
        """Which events go to which partition: by the key's CRC-32, as librdkafka does it; without a key in turn."""
        if producer is not None:
            turn = producer[1] % partitions  # the same when it is sent again
        else:
            with self._lock:
                self._turn += 1
                turn = self._turn % partitions
        if keys is None:
            return [(turn, list(range(len(values))))]
        chosen = np.fromiter(
            (turn if key is None else zlib.crc32(key) % partitions for key in keys), np.int64, len(keys)
        )
        return [(number, np.flatnonzero(chosen == number).tolist()) for number in np.unique(chosen).tolist()]

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Events:
        cursor = _Cursor(self._folder(topic, partition), partition, offset)
        try:
            return cursor.read(limit)
        finally:
            cursor.close()

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        found = {}
        for partition in range(self._count(topic)):
            files = segment_files(self._folder(topic, partition))
            found[partition] = (files[0][0], self._end(topic, partition, *files[-1])) if files else (0, 0)
        return found

    def _end(self, topic: str, partition: int, base: int, path: Path) -> int:
        """The offset after the last whole batch; only what is new since the last call is looked at."""
        known = self._ends.get((topic, partition))
        position, offset = known[1:] if known is not None and known[0] == base else (0, base)
        file = os.open(path, os.O_RDONLY)
        try:
            last: Batch | None = None
            for batch in segments.batches(file, position):
                if last is not None:
                    position, offset = last.end, last.next_offset
                last = batch
            self._ends[topic, partition] = (base, position, offset)
            # The last one may still be on its way to the disk.
            return last.next_offset if last is not None and segments.read_body(file, last) is not None else offset
        finally:
            os.close(file)

    def identity(self, topic: str) -> str:
        number = self._about(topic).get("id")  # topics had none at first
        return "" if number is None else f"{number:x}"

    def reader(self, topic: str, group: str, *, start: str = "earliest") -> SegmentReader:
        if start not in ("earliest", "latest"):
            raise ConfigError(f"a reader can't start at {start!r}", hint=allowed(["earliest", "latest"], start))
        if not _NAME.fullmatch(group):
            raise ConfigError(f"{group!r} can't be a group's name", hint="letters, digits, . _ -")
        return SegmentReader(self, topic, self._path / topic, group, self._count(topic), start)

    def close(self) -> None:
        with self._lock:
            for writer in self._writers.values():
                writer.close()
            self._writers = {}

    def _writer(self, topic: str, partition: int) -> PartitionWriter:
        with self._lock:
            found = self._writers.get((topic, partition))
            if found is None:
                found = PartitionWriter(self._folder(topic, partition), self._limits, self._clock)
                self._writers[topic, partition] = found
            return found

    def _folder(self, topic: str, partition: int) -> Path:
        if not 0 <= partition < self._count(topic):
            raise NotFoundError(f"topic {topic!r} has no partition {partition}")
        return self._path / topic / str(partition)

    def _count(self, topic: str) -> int:
        found = self._partitions.get(topic)
        if found is None:
            found = self._partitions[topic] = self._about(topic)["partitions"]
        return found

    def _about(self, topic: str) -> dict[str, int]:
        try:
            return msgspec.json.decode((self._path / topic / "topic.json").read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            known = [file.parent.name for file in self._path.glob("*/topic.json")]
            raise NotFoundError(f"there is no topic {topic!r}", hint=allowed(known, topic)) from None
        except (OSError, msgspec.MsgspecError) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> StorageError:
        return StorageError(
            f"the event log {self._path} can't be used: {error}",
            hint="check that the folder is writable and the disk isn't full; no event is half written",
        )


class _Cursor:
    """A place in a partition, from which events are read on; across segments, and past what retention has removed."""

    def __init__(self, folder: Path, partition: int, offset: int) -> None:
        self._folder = folder
        self._partition = partition
        self.offset = offset
        self._file = -1
        self._path = folder
        self._position = 0

    def read(self, limit: int) -> Events:
        """The next events, at most `limit`; none when there are none yet."""
        offsets, times, keys, values = [], [], [], []
        left = limit
        while left > 0:
            found = self._next(left)
            if found is None:
                break
            batch, skip, some_keys, some_values = found
            count = len(some_values)
            offsets.append(np.arange(batch.offset + skip, batch.offset + skip + count, dtype=np.int64))
            times.append(np.full(count, batch.time, np.int64))
            keys += some_keys
            values += some_values
            left -= count
        empty = np.empty(0, np.int64)
        return Events(
            self._partition,
            np.concatenate(offsets) if offsets else empty,
            np.concatenate(times) if times else empty,
            keys,
            values,
        )

    def _next(self, limit: int) -> tuple[Batch, int, list[bytes | None], list[bytes]] | None:
        while True:
            if self._file < 0 and not self._open():
                return None
            batch = segments.read_header(self._file, self._position)
            if batch is None or batch.end > os.fstat(self._file).st_size:
                if self._is_last():
                    return None
                self._check_end()
                self._leave()
                continue
            if batch.next_offset <= self.offset:
                self._position = batch.end
                continue
            data = segments.read_body(self._file, batch)
            if data is None:
                if self._is_last() and segments.is_unfinished(self._file, batch):
                    return None  # being written, or cut off by a crash
                raise segments.damaged(self._path, batch.position)
            skip = max(0, self.offset - batch.offset)
            keys, values = segments.decode(batch, data, skip, limit)
            self.offset = batch.offset + skip + len(values)
            if self.offset == batch.next_offset:
                self._position = batch.end
            return batch, skip, keys, values

    def _open(self) -> bool:
        files = segment_files(self._folder)
        if not files:
            return False
        base, path = next(((b, p) for b, p in reversed(files) if b <= self.offset), files[0])
        try:
            self._file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # retention came between
            return self._open()
        self._path, self._position = path, 0
        self.offset = max(self.offset, base)
        return True

    def _is_last(self) -> bool:
        return segment_files(self._folder)[-1][1] == self._path

    def _check_end(self) -> None:
        """A closed segment must be whole: what is after its last batch would be lost in silence."""
        if not self._path.exists():  # retention came between
            return
        nxt = min(base for base, path in segment_files(self._folder) if path.name > self._path.name)
        if self._position < os.fstat(self._file).st_size and self.offset < nxt:
            raise segments.damaged(self._path, self._position)
        self.offset = max(self.offset, nxt)

    def _leave(self) -> None:
        os.close(self._file)
        self._file = -1

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            self._leave()


class SegmentReader:
    """`EventReader` of the embedded log."""

    def __init__(self, log: SegmentLog, topic: str, folder: Path, group: str, partitions: int, start: str) -> None:
        self._log = log
        self._topic = topic
        self._folder = folder
        self._start = start
        try:
            self._group = Group(folder / "groups" / group, partitions)
        except OSError as error:
            raise log._error(error) from error
        self._cursors: dict[int, _Cursor] = {}
        self._given: Change = _nothing
        self._taken: Change = _nothing
        self._looked = 0.0
        self._first = 0

    @property
    def assigned(self) -> tuple[int, ...]:
        return tuple(sorted(self._cursors))

    @property
    def joined(self) -> bool:
        return self._looked > 0

    def on_change(self, given: Change, taken: Change) -> None:
        self._given, self._taken = given, taken

    def poll(self, limit: int, timeout: float) -> list[Events]:
        deadline = time.monotonic() + timeout
        pause = 0.001
        while True:
            self._look()
            found = self._read(limit)
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.01)

    def _read(self, limit: int) -> list[Events]:
        found, left = [], limit
        partitions = self.assigned
        self._first += 1  # nobody is always first
        for turn in range(len(partitions)):
            if left <= 0:
                break
            events = self._cursors[partitions[(self._first + turn) % len(partitions)]].read(left)
            if len(events):
                found.append(events)
                left -= len(events)
        return found

    def _look(self) -> None:
        """Give back and take partitions, as members come and go."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        surplus = self._group.surplus()
        if surplus:
            self._taken(surplus)
            for partition in surplus:
                self._cursors.pop(partition).close()
                self._group.release(partition)
        new = self._group.acquire()
        if new:
            committed = self._group.committed()
            latest = self._log.bounds(self._topic) if self._start == "latest" else {}
            for partition in new:
                offset = committed.get(partition, latest.get(partition, (0, 0))[1])
                self._cursors[partition] = _Cursor(self._folder / str(partition), partition, offset)
            self._given(new)

    def seek(self, partition: int, offset: int) -> None:
        self._cursors[partition].close()
        self._cursors[partition] = _Cursor(self._folder / str(partition), partition, offset)

    def commit(self, offsets: Mapping[int, int]) -> None:
        try:
            self._group.commit(offsets)
        except OSError as error:
            raise self._log._error(error) from error

    def committed(self) -> dict[int, int]:
        return self._group.committed()

    def close(self) -> None:
        for cursor in self._cursors.values():
            cursor.close()
        self._cursors = {}
        self._group.leave()


def _nothing(partitions: Sequence[int]) -> None:
    pass
