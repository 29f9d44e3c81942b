"""One at a time: a file lock that the kernel releases when the process dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noria.core.errors import BusyError, StorageError


@contextmanager
def exclusive(file: Path, what: str) -> Iterator[None]:
    """Hold the lock on `file` for the block.

    Raises:
        BusyError: another process holds it; the message names that process.
        StorageError: the file can't be made or written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StorageError(
            f"can't make the lock file {file}: {error}", hint="check that the folder is writable"
        ) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise BusyError(
                f"{what} is already going on in process {holder}", hint="wait until it has finished, or stop it"
            ) from error
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
        except OSError as error:
            raise StorageError(f"can't write to the lock file {file}: {error}", hint="is the disk full?") from error
        yield
    finally:
        os.close(handle)
