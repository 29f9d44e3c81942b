"""Writing a file whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from noria.core import StorageError


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """The place to write to, which takes the file's own once all is written.

    Raises:
        StorageError: it can't be written; then nothing has changed.
    """
    half = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield half
        half.replace(file)
    except OSError as error:
        half.unlink(missing_ok=True)
        raise StorageError(
            f"{file} can't be written: {error}", hint="is the folder there, and the disk full?"
        ) from error
