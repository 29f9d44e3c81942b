"""Blobs: bytes addressed by their SHA-256 digest, so that what was written is what is read, or an error."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from noria.core import IntegrityError, NotFoundError, StorageError


@dataclass(frozen=True)
class Blob:
    """A stored blob: its SHA-256 digest in hex and its size in bytes."""

    digest: str
    size: int


class BlobStore(Protocol):
    """A store of immutable bytes. Writing the same bytes twice stores them once."""

    def write(self, data: bytes) -> Blob:
        """Store the bytes durably; when this returns, a killed machine still has them."""
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


class FileBlobs:
    """`BlobStore` in a folder: one file per blob, in 256 sub-folders."""

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)

    def write(self, data: bytes) -> Blob:
        digest = hashlib.sha256(data).hexdigest()
        target = self._file(digest)
        try:
            if not (target.exists() and _digest(target) == digest):
                target.parent.mkdir(parents=True, exist_ok=True)
                _write_durably(target, data)
        except OSError as error:
            raise StorageError(
                f"can't write a blob of {len(data)} bytes to {self._folder}: {error}",
                hint="check that the folder is writable and the disk isn't full",
            ) from error
        return Blob(digest, len(data))

    def read(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()

    def path(self, digest: str) -> Path:
        target = self._file(digest)
        if not target.exists():
            raise NotFoundError(f"there is no blob {digest} in {self._folder}")
        if _digest(target) != digest:
            raise IntegrityError(
                f"the blob {target} is corrupt: its bytes don't have the checksum that it was stored under",
                hint="restore the file from a backup, or train and register the model again",
            )
        return target

    def _file(self, digest: str) -> Path:
        return self._folder / digest[:2] / digest[2:]


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_durably(target: Path, data: bytes) -> None:
    # A reader sees the whole file or none: written aside, flushed, then renamed, and the folder flushed too.
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".writing-")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).chmod(0o444)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
