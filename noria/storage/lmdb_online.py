"""Online store in an LMDB file: memory-mapped, readers never wait for writers, a read takes microseconds."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import lmdb

from noria.core import ConfigError, ConflictError, StorageError
from noria.storage.online import TIME, Mark, Merge, OnlineValue, pack, unpack

MAP_SIZE = 64 << 30
"""Address space for the file: a limit, not an allocation; the file grows as it fills."""
_MAX_KEY = 511
_MARKS = b"\0marks\0"
"""Where marks are kept: no group's name has a NUL."""

_open: dict[str, tuple[lmdb.Environment, int]] = {}
_open_lock = threading.Lock()
# LMDB's file locks are per process: opening one file twice in a process would drop them, so it is shared.


class LmdbOnline:
    """`OnlineStore` in the folder `path`, which is made when it is missing."""

    def __init__(self, path: Path | str) -> None:
        self._path = str(Path(path).resolve())
        self._environment = _acquire(self._path)
        self._closed = False

    def write(
        self,
        group: str,
        keys: Sequence[bytes],
        times: Sequence[int],
        values: Sequence[bytes],
        *,
        mark: Mark | None = None,
    ) -> int:
        names = _names(group, keys)
        packed = pack(times, values)
        new: dict[bytes, bytes] = {}
        written = 0
        try:
            with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                _move(transaction, mark)
                order = sorted(set(names))
                newest = {name: TIME.unpack_from(value)[0] for name, value in cursor.getmulti(order)}
                for name, time, value in zip(names, times, packed, strict=True):  # a key may stand there several times
                    if newest.get(name, time) <= time:
                        newest[name], new[name] = time, value
                        written += 1
                cursor.putmulti([(name, new[name]) for name in order if name in new])
        except lmdb.Error as error:
            raise self._error(error) from error
        return written

    def update(self, group: str, keys: Sequence[bytes], merge: Merge, *, mark: Mark | None = None) -> None:
        names = _names(group, keys)
        try:
            with self._environment.begin(write=True) as transaction, transaction.cursor() as cursor:
                _move(transaction, mark)
                # In the order of the keys, each page is visited once.
                order = sorted(names)
                present = dict(cursor.getmulti(order))
                times, values = merge(unpack([present.get(name) for name in names]))
                new = dict(zip(names, pack(times, values), strict=True))
                cursor.putmulti([(name, new[name]) for name in order])
        except lmdb.Error as error:
            raise self._error(error) from error

    def marks(self, prefix: str = "") -> dict[str, int]:
        start = _MARKS + prefix.encode()
        try:
            with self._environment.begin() as transaction, transaction.cursor() as cursor:
                found = list(_entries(cursor, start))
        except lmdb.Error as error:
            raise self._error(error) from error
        return {name[len(_MARKS) :].decode(): TIME.unpack(value)[0] for name, value in found}

    def read(self, group: str, keys: Sequence[bytes]) -> list[OnlineValue | None]:
        names = _names(group, keys)
        try:
            with self._environment.begin() as transaction:
                return unpack(list(map(transaction.get, names)))
        except lmdb.Error as error:
            raise self._error(error) from error

    def count(self, group: str) -> int:
        prefix = _prefix(group)
        try:
            with self._environment.begin() as transaction, transaction.cursor() as cursor:
                return sum(1 for _ in _entries(cursor, prefix))
        except lmdb.Error as error:
            raise self._error(error) from error

    def expire(self, group: str, keys: Sequence[bytes], seconds: int) -> None:
        """Nothing is forgotten: a file's pages would be free only for other values."""

    def drop(self, group: str, *, older_than: int | None = None) -> None:
        prefix = _prefix(group)
        try:
            with self._environment.begin(write=True) as transaction:
                with transaction.cursor() as cursor:
                    names = [
                        name
                        for name, value in _entries(cursor, prefix)
                        if older_than is None or TIME.unpack_from(value)[0] < older_than
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


def _move(transaction: Any, mark: Mark | None) -> None:
    if mark is None:
        return
    name = _MARKS + mark.name.encode()
    old = transaction.get(name)
    now = -1 if old is None else TIME.unpack(old)[0]
    if now != mark.before:
        raise ConflictError(
            f"the mark {mark.name!r} of the online store is {now}, expected {mark.before}: another process was here",
            hint="nothing was written; read the mark and go on from there",
        )
    transaction.put(name, TIME.pack(mark.after))


def _names(group: str, keys: Sequence[bytes]) -> list[bytes]:
    prefix = _prefix(group)
    names = [prefix + key for key in keys]
    if names and max(map(len, names)) > _MAX_KEY:
        return [_name(prefix, key) for key in keys]
    return names


@lru_cache(1024)
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
