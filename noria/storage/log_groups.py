"""Groups of the embedded event log: who reads which partition, and how far the group has come.

Membership is a file lock, which the kernel releases when a process dies, however it dies. Each member takes its share
of the partitions, rounded up, and gives back what is over it; no member has to be in charge.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from noria.core import ConflictError

_MEMBER = ".member"


class Group:
    """One member's view of a group in `folder`."""

    def __init__(self, folder: Path, partitions: int) -> None:
        self._folder = folder
        self._partitions = partitions
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / f"{secrets.token_hex(8)}.joining"
        self._membership = os.open(aside, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(self._membership, fcntl.LOCK_EX)
        self._name = aside.with_suffix(_MEMBER)
        aside.rename(self._name)  # seen by others only when it is locked: an unlocked one is of a dead member
        self.owned: dict[int, int] = {}

    def surplus(self) -> list[int]:
        """Partitions that are over this member's share."""
        return sorted(self.owned)[self._share() :]

    def acquire(self) -> list[int]:
        """Take free partitions up to this member's share; returns the new ones."""
        taken: list[int] = []
        share = self._share()
        for partition in range(self._partitions):
            if len(self.owned) >= share:
                break
            if partition in self.owned:
                continue
            handle = os.open(self._folder / f"{partition}.owner", os.O_RDWR | os.O_CREAT, 0o644)
            if _lock(handle):
                self.owned[partition] = handle
                taken.append(partition)
            else:
                os.close(handle)
        return taken

    def release(self, partition: int) -> None:
        """Give a partition back."""
        os.close(self.owned.pop(partition))

    def commit(self, offsets: Mapping[int, int]) -> None:
        """Remember offsets durably."""
        for partition in offsets:
            if partition not in self.owned:
                raise ConflictError(f"partition {partition} is not this member's any more", hint="poll again")
        for partition, offset in offsets.items():
            aside = self._folder / f"{partition}.{os.getpid()}.new"
            with aside.open("w") as stream:
                stream.write(str(offset))
                stream.flush()
                os.fsync(stream.fileno())
            aside.replace(self._folder / f"{partition}.offset")

    def committed(self) -> dict[int, int]:
        """What the group has committed, by partition."""
        found = {}
        for file in self._folder.glob("*.offset"):
            text = file.read_text()
            if text:
                found[int(file.stem)] = int(text)
        return found

    def leave(self) -> None:
        """Give everything back."""
        for partition in list(self.owned):
            self.release(partition)
        self._name.unlink(missing_ok=True)
        os.close(self._membership)

    def _share(self) -> int:
        return -(-self._partitions // max(1, self._members()))

    def _members(self) -> int:
        alive = 0
        for file in self._folder.iterdir():
            if file.suffix != _MEMBER:
                continue
            if file == self._name:
                alive += 1
                continue
            try:
                handle = os.open(file, os.O_RDWR)
            except FileNotFoundError:
                continue
            if _lock(handle):
                file.unlink(missing_ok=True)
            else:
                alive += 1
            os.close(handle)
        return alive


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
