"""Checkpoints: what a driver that is killed finds again.

A file is written aside and renamed, so that it is whole or not there. It begins with the key of the work that it
belongs to and a checksum: one of other work, or damaged, is as good as none.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from noria.core import ConfigError, StorageError, duration, fingerprint
from noria.core.time import SECOND

_KEY, _SUM = 64, 32


def data_key(definition: dict[str, Any], seed: int, *arrays: NDArray[Any] | None) -> str:
    """A key of the work: what is done, with which seed, on which data."""
    digest = hashlib.sha256(fingerprint(definition).encode() + b"%d" % seed)
    for array in arrays:
        if array is None:
            digest.update(b"none")
        else:
            digest.update(f"{array.dtype}{array.shape}".encode())
            # Text is kept as objects, whose bytes are addresses.
            digest.update(pickle.dumps(array.tolist()) if array.dtype.hasobject else np.ascontiguousarray(array).data)
    return digest.hexdigest()


def check_every(every: int | str) -> None:
    """That an interval is a number of rounds or a duration.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(every, str):
        duration(every)
    elif type(every) is not int or every < 1:
        raise ConfigError(
            f"checkpoint={every!r} is no interval", hint='a number of rounds, or a duration such as "60s"'
        )


@dataclass
class Checkpoints:
    """The checkpoints of one piece of work in a folder.

    Args:
        folder: None to keep nothing.
        key: of the work.
        every: rounds, or a duration such as `60s`, between two of them.
    """

    folder: Path | None
    key: str
    every: int | str = 1
    _last: float = field(default_factory=time.monotonic, init=False)

    def is_due(self, done: int) -> bool:
        """Whether one is due after `done` rounds."""
        if self.folder is None:
            return False
        if isinstance(self.every, int):
            return done % self.every == 0
        if time.monotonic() - self._last < duration(self.every) / SECOND:
            return False
        self._last = time.monotonic()
        return True

    def write(self, name: str, data: bytes) -> None:
        """Keep these bytes under this name.

        Raises:
            StorageError: the folder can't be written to.
        """
        if self.folder is None:
            return
        whole = self.key.encode() + hashlib.sha256(data).digest() + data
        aside = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, aside = tempfile.mkstemp(dir=self.folder, prefix=".writing-")
            with os.fdopen(handle, "wb") as stream:
                stream.write(whole)
                stream.flush()
                os.fsync(stream.fileno())
            Path(aside).replace(self.folder / name)
        except OSError as error:
            if aside is not None:
                Path(aside).unlink(missing_ok=True)
            raise StorageError(
                f"the checkpoint can't be written to {self.folder}: {error}", hint="is the disk full?"
            ) from error

    def read(self, name: str) -> bytes | None:
        """The bytes under this name, if they belong to this work and are whole."""
        try:
            whole = b"" if self.folder is None else (self.folder / name).read_bytes()
        except OSError:
            return None
        data = whole[_KEY + _SUM :]
        is_ours = whole[:_KEY] == self.key.encode() and whole[_KEY : _KEY + _SUM] == hashlib.sha256(data).digest()
        return data if is_ours else None


def pack(arrays: dict[str, NDArray[Any]], facts: dict[str, Any]) -> bytes:
    """Arrays and plain JSON data as bytes."""
    made = io.BytesIO()
    said = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    np.savez(made, __facts__=said, **arrays)  # type: ignore[arg-type]
    return made.getvalue()


def unpack(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The reverse of `pack`."""
    with np.load(io.BytesIO(data), allow_pickle=False) as found:
        arrays = {name: found[name] for name in found.files if name != "__facts__"}
        return arrays, json.loads(found["__facts__"].tobytes())
