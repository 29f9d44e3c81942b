"""Blobs: bytes addressed by their SHA-256 digest, so that what was written is what is read, or an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

BLOCK = 1 << 19
"""Bytes that are copied and hashed at once: they stay in the processor's cache between the two, and 4 MB don't."""


@dataclass(frozen=True)
class Blob:
    """A stored blob: its SHA-256 digest in hex and its size in bytes."""

    digest: str
    size: int


@dataclass(frozen=True)
class Stored:
    """What lies in a store.

    Attributes:
        digest: the blob's; empty for what a kill has left of a blob that was being written.
        size: in bytes.
        written: when it was written last, or written again, in microseconds since 1970 by the store's clock.
        place: where the store keeps it.
    """

    digest: str
    size: int
    written: int
    place: str


class BlobStore(Protocol):
    """A store of immutable bytes. Writing the same bytes twice stores them once."""

    def write(self, data: bytes | Path) -> Blob:
        """Store the bytes, or a copy of the file's, durably; when this returns, a killed machine still has them.

        Raises:
            NotFoundError: there is no such file.
            StorageError: they can't be written, or the file changes meanwhile; nothing of them is visible.
        """
        ...

    def read(self, digest: str) -> bytes:
        """The bytes.

        Raises:
            NotFoundError: there is no such blob.
            IntegrityError: the stored bytes don't have that digest.
        """
        ...

    def path(self, digest: str) -> Path:
        """A local, read-only file with the bytes, whose digest has been verified."""
        ...

    def stored(self) -> Iterator[Stored]:
        """All that lies in the store, in no order; what isn't the store's own is left out."""
        ...

    def remove(self, stored: Stored) -> bool:
        """Remove it, unless it is gone or was written again since it was listed; returns whether it was removed."""
        ...
