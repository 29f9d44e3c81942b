"""Online store in an LMDB file: memory-mapped, readers never wait for writers, a read takes microseconds."""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lmdb

from noria.core import ConfigError, StorageError
from noria.storage.online import OnlineValue

MAP_SIZE = 64 << 30
"""Address space for the file: a limit, not an allocation; the file grows as it fills."""
_TIME = struct.Struct("<q")
_MAX_KEY = 511

_open: dict[str, tuple[lmdb.Environment, int]] = {}
_open_lock = threading.Lock()
# LMDB's file locks are per process: opening one file twice in a process would drop them, so it is shared.


class LmdbOnline:
    """`OnlineStore` in the folder `path`, which is made when it is missing."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(Path(path).resolve())
        self._environment = _acquire(self._path)
        self._closed = False

    def write(self, group: str, keys: Sequence[bytes], times: Sequence[int], values: Sequence[bytes]) -> int:
        prefix, written = _prefix(group), 0
        try:
            with self._environment.begin(write=True) as transaction:
                for key, time, value in zip(keys, times, values, strict=True):
                    name = _name(prefix, key)
                    old = transaction.get(name)
                    if old is not None and _TIME.unpack_from(old)[0] > time:
                        continue
                    transaction.put(name, _TIME.pack(time) + value)
                    written += 1
        except lmdb.Error as error:
            raise self._error(error) from error
        return written

    def read(self, group: str, keys: Sequence[bytes]) -> list[OnlineValue | None]:
        prefix = _prefix(group)
        found: list[OnlineValue | None] = []
        try:
            with self._environment.begin() as transaction:
                for key in keys:
                    data = transaction.get(_name(prefix, key))
                    found.append(None if data is None else OnlineValue(_TIME.unpack_from(data)[0], data[8:]))
        except lmdb.Error as error:
            raise self._error(error) from error
        return found

    def count(self, group: str) -> int:
        prefix = _prefix(group)
        try:
            with self._environment.begin() as transaction, transaction.cursor() as cursor:
                return sum(1 for _ in _entries(cursor, prefix))
        except lmdb.Error as error:
            raise self._error(error) from error

    def drop(self, group: str, *, older_than: int | None = None) -> None:
        prefix = _prefix(group)
        try:
            with self._environment.begin(write=True) as transaction:
                with transaction.cursor() as cursor:
                    names = [
                        name
                        for name, value in _entries(cursor, prefix)
                        if older_than is None or _TIME.unpack_from(value)[0] < older_than
                    ]
                for name in names:
                    transaction.delete(name)
        except lmdb.Error as error:
            raise self._error(error) from error

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            _release(self._path)

    def _error(self, error: Exception) -> StorageError:
        return StorageError(
            f"the online store {self._path} can't be used: {error}",
            hint="check that the folder is writable and the disk isn't full",
        )


def _prefix(group: str) -> bytes:
    name = group.encode()
    if b"\0" in name or len(name) > 200:
        raise ConfigError(
            f"{group!r} can't be a group's name in the online store", hint="use at most 200 bytes, no NUL"
        )
    return name + b"\0"


def _name(prefix: bytes, key: bytes) -> bytes:
    name = prefix + key
    # LMDB's keys are short; a long one is kept by its hash, which is as good as unique.
    return name if len(name) <= _MAX_KEY else prefix + b"\xff" + hashlib.sha256(key).digest()


def _entries(cursor: Any, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    if cursor.set_range(prefix):
        for name, value in cursor:
            if not name.startswith(prefix):
                return
            yield name, value


def _acquire(path: str) -> lmdb.Environment:
    with _open_lock:
        if path in _open:
            environment, users = _open[path]
        else:
            try:
                Path(path).mkdir(parents=True, exist_ok=True)
                environment, users = lmdb.open(path, map_size=MAP_SIZE, max_readers=512), 0
                environment.reader_check()  # frees the places of readers that were killed
            except (OSError, lmdb.Error) as error:
                raise StorageError(
                    f"can't open the online store {path}: {error}",
                    hint="check that the folder is writable; if the file is damaged, remove the folder and call "
                    "`noria run`: it is built from the tables",
                ) from error
        _open[path] = (environment, users + 1)
        return environment


def _release(path: str) -> None:
    with _open_lock:
        environment, users = _open.pop(path)
        if users > 1:
            _open[path] = (environment, users - 1)
        else:
            environment.close()
