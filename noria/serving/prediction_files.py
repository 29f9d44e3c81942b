"""The files of the prediction log: JSON lines in segments, which any number of processes write and anyone reads.

Each process writes segments of its own and appends whole lines to them, so that a process that is killed leaves at most
one torn line, which readers skip and count. The oldest segments of all processes go first when there is too much.
"""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from noria.core import Clock
from noria.core.decoding import decodable
from noria.features.reads import GroupRead

_PARTS = 16
"""Segments that fill the room there is."""


@decodable
class Prediction(msgspec.Struct, frozen=True, omit_defaults=True):
    """One request that was recorded with its answer.

    Attributes:
        id: the request's id, as the answer's `X-Request-Id`.
        at: when it was answered, microseconds.
        kind: what was asked for: `predict`, `recommend`, or `features` for `POST /features`.
        chosen: why it is here: `share` by chance, `second` as the only one of its second.
        latency: seconds from request to answer.
        model, version: who answered; none for `features`.
        groups: what was read of feature groups.
        inputs, output: request and answer; left out where they are too long.
        variant: who answered, where a deployment runs.
        traceparent: of the request (W3C Trace Context).
    """

    id: str
    at: int
    kind: str
    chosen: str
    latency: float
    model: str | None = None
    version: int | None = None
    groups: list[GroupRead] = []
    inputs: Any = None
    output: Any = None
    variant: str = ""
    traceparent: str = ""


class Segments:
    """Where one process writes.

    Args:
        folder: shared with other processes.
        writer: part of the segments' names.
        max_bytes: of all segments in the folder; each process that writes may exceed it by a sixteenth.
    """

    def __init__(self, folder: Path, writer: str, max_bytes: int, clock: Clock) -> None:
        self._folder = folder
        self._writer = writer
        self._max_bytes = max_bytes
        self._clock = clock
        self._file: int | None = None
        self._size = 0

    def write(self, lines: bytes) -> None:
        """Append whole lines.

        Raises:
            OSError: the disk is full, or the folder can't be written; a new segment is begun with the next lines.
        """
        try:
            if self._file is None or self._size >= self._max_bytes // _PARTS or os.fstat(self._file).st_nlink == 0:
                self._open()  # the first, the next, or one in place of that which another process has removed
            left = memoryview(lines)
            while left and self._file is not None:
                written = os.write(self._file, left)
                left = left[written:]
            self._size += len(lines)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        self.close()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._make_room()
        name = f"{self._clock.now():016d}-{self._writer}-{os.getpid()}.jsonl"
        # They have what people were asked about: for nobody else's eyes.
        self._file = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def _make_room(self) -> None:
        sizes: list[tuple[Path, int]] = []
        for file in segments(self._folder):
            try:
                sizes.append((file, file.stat().st_size))
            except FileNotFoundError:  # another process makes room too
                continue
        total = sum(size for _, size in sizes) + self._max_bytes // _PARTS
        for file, size in sizes:
            if total <= self._max_bytes:
                break
            file.unlink(missing_ok=True)
            total -= size


@dataclass
class PredictionReader:
    """Reads what is in a folder of segments, as often as it is iterated over.

    Attributes:
        torn: lines that couldn't be read the last time.
    """

    folder: Path
    torn: int = 0

    def __iter__(self) -> Iterator[Prediction]:
        """All predictions, those of one process in their order."""
        self.torn = 0
        decode = msgspec.json.Decoder(Prediction).decode
        for file in segments(self.folder):
            try:
                lines = file.open("rb")
            except FileNotFoundError:
                continue
            with lines:
                for line in lines:
                    try:
                        yield decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        self.torn += 1


def newest(
    reader: PredictionReader, *, model: str | None = None, since: int | None = None, limit: int = 10_000
) -> list[Prediction]:
    """The newest predictions, in the order of their times.

    Args:
        reader: where they are.
        model: `name` or `name@version`; all by default, reads of features included.
        since: microseconds; only those from then on.
        limit: how many at most.
    """
    name, _, version = (model or "").partition("@")
    wanted = (
        one
        for one in reader
        if (not name or one.model == name)
        and (not version or str(one.version) == version)
        and (since is None or one.at >= since)
    )
    return heapq.nlargest(limit, wanted, key=_when)[::-1]


def _when(prediction: Prediction) -> int:
    return prediction.at


def segments(folder: Path) -> list[Path]:
    """The files, the oldest first."""
    return sorted(folder.glob("*.jsonl"))
