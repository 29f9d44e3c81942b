"""Online store in Redis (or Valkey): one packed value a key, read by one `MGET`.

A write reads what is there, decides here, and sends old and new values to a script on the server, which puts the new
ones in place if the old ones are still there, and the mark; else it is done again. `WATCH` and `MULTI` would do the
same, but watching 10,000 keys takes the server 400 ms (its search for a key among those that are watched is linear);
the script takes 10. How durable a write is, is the server's `appendfsync` to decide.
"""

from __future__ import annotations

import random
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from noria.core import ConfigError, ConflictError, MissingExtraError, StorageError
from noria.storage.online import Mark, Merge, OnlineValue

_TIME = struct.Struct("<q")
_VALUES, _MARKS = b"noria:values:", b"noria:marks:"
_RETRIES = 200
_AT_ONCE = 10_000
_SCRIPT = """
local present = redis.call('GET', KEYS[1])
if KEYS[1] ~= '' and (present or '-1') ~= ARGV[1] then return 'MARK' end
for from = 2, #KEYS, 4000 do
  local to = math.min(#KEYS, from + 3999)
  local values = redis.call('MGET', unpack(KEYS, from, to))
  for i = from, to do
    if (values[i - from + 1] or '') ~= ARGV[2 * i - 1] then return 'OTHER' end
  end
end
for from = 2, #KEYS, 3000 do
  local to, pairs = math.min(#KEYS, from + 2999), {}
  for i = from, to do
    pairs[#pairs + 1] = KEYS[i]
    pairs[#pairs + 1] = ARGV[2 * i]
  end
  redis.call('MSET', unpack(pairs))
end
if KEYS[1] ~= '' then redis.call('SET', KEYS[1], ARGV[2]) end
return 'OK'
"""
"""Keys: the mark's, then the values'. Arguments: the mark before and after, then each value's old and new bytes; an
absent value is empty, which no value is."""

T = TypeVar("T")


class RedisOnline:
    """`OnlineStore` at `redis://[user:password@]host:port/db`, `rediss://…` or `unix://…`."""

    def __init__(self, url: str) -> None:
        self._shown = re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", url)
        try:
            import redis
        except ImportError as error:
            raise MissingExtraError("redis", "redis", f"the online store {self._shown}") from error
        self._redis = redis
        try:
            self._client: Any = redis.Redis.from_url(url, socket_connect_timeout=2.0, socket_timeout=5.0, protocol=2)
            self._script: Any = self._client.register_script(_SCRIPT)
        except ValueError as error:
            raise ConfigError(
                f"storage.online = {self._shown!r} is no URL of Redis", hint="redis://HOST:6379/0"
            ) from error

    def write(
        self,
        group: str,
        keys: Sequence[bytes],
        times: Sequence[int],
        values: Sequence[bytes],
        *,
        mark: Mark | None = None,
    ) -> int:
        written = 0

        def merge(old: list[bytes | None]) -> dict[bytes, bytes]:
            nonlocal written
            written = 0
            made: dict[bytes, bytes] = {}
            present = dict(zip(names, old, strict=True))
            for name, at, value in zip(_names(group, keys), times, values, strict=True):
                before = made.get(name) or present[name]
                if before is None or _TIME.unpack_from(before)[0] <= at:
                    made[name] = _TIME.pack(at) + value
                    written += 1
            return made

        names = list(dict.fromkeys(_names(group, keys)))  # a key may stand there several times
        self._transact(names, merge, mark)
        return written

    def update(self, group: str, keys: Sequence[bytes], merge: Merge, *, mark: Mark | None = None) -> None:
        names = _names(group, keys)

        def replace(old: list[bytes | None]) -> dict[bytes, bytes]:
            times, values = merge([_value(data) for data in old])
            return {name: _TIME.pack(at) + value for name, at, value in zip(names, times, values, strict=True)}

        self._transact(names, replace, mark)

    def _transact(
        self, names: list[bytes], change: Callable[[list[bytes | None]], dict[bytes, bytes]], mark: Mark | None
    ) -> None:
        if not names and mark is None:
            return
        place = b"" if mark is None else _MARKS + mark.name.encode()

        def once() -> bool:
            keys = names if mark is None else [*names, place]
            old = [value for some in _parts(keys) for value in self._client.mget(some)]
            if mark is not None:
                _verify(mark, old.pop())
            made = change(old)
            present = dict(zip(names, old, strict=True))
            values = [value for name, new in made.items() for value in (present[name] or b"", new)]
            moved = (b"", b"") if mark is None else (mark.before, mark.after)
            said = self._script(keys=[place, *made], args=[*moved, *values])
            return bool(said == b"OK")

        for attempt in range(_RETRIES):
            if self._run(once):
                return
            time.sleep(random.random() * min(0.05, 0.001 * (attempt + 1)))  # so that two don't stay in step
        raise StorageError(
            f"the online store {self._shown}: other writers came between {_RETRIES} times",
            hint="do several streams write the same keys? give the topic a key",
        )

    def marks(self, prefix: str = "") -> dict[str, int]:
        def read() -> dict[str, int]:
            names = list(self._client.scan_iter(match=_MARKS + _escaped(prefix.encode()) + b"*", count=1000))
            values = self._client.mget(names) if names else []
            found = zip(names, values, strict=True)
            return {name[len(_MARKS) :].decode(): int(value) for name, value in sorted(found) if value is not None}

        return self._run(read)

    def read(self, group: str, keys: Sequence[bytes]) -> list[OnlineValue | None]:
        if not keys:
            return []
        names = _names(group, keys)
        return self._run(lambda: [_value(data) for some in _parts(names) for data in self._client.mget(some)])

    def count(self, group: str) -> int:
        return self._run(lambda: sum(1 for _ in self._entries(group)))

    def drop(self, group: str, *, older_than: int | None = None) -> None:
        def remove() -> None:
            for some in _parts(list(self._entries(group))):
                if older_than is not None:
                    values = self._client.mget(some)
                    some = [
                        name
                        for name, data in zip(some, values, strict=True)
                        if data is not None and _TIME.unpack_from(data)[0] < older_than
                    ]
                if some:
                    self._client.unlink(*some)

        self._run(remove)

    def close(self) -> None:
        self._client.close()

    def _entries(self, group: str) -> Iterator[bytes]:
        # A scan may give a key twice.
        yield from set(self._client.scan_iter(match=_escaped(_prefix(group)) + b"*", count=5000))

    def _run(self, work: Callable[[], T]) -> T:
        try:
            return work()
        except self._redis.RedisError as error:
            raise StorageError(
                f"the online store {self._shown} can't be used: {error}",
                hint="is the server up, and does storage.online name its host, port and password?",
            ) from error


def _verify(mark: Mark, present: bytes | None) -> None:
    now = -1 if present is None else int(present)
    if now != mark.before:
        raise ConflictError(
            f"the mark {mark.name!r} of the online store is {now}, expected {mark.before}: another process was here",
            hint="nothing was written; read the mark and go on from there",
        )


def _prefix(group: str) -> bytes:
    name = group.encode()
    if b"\0" in name or len(name) > 200:
        raise ConfigError(
            f"{group!r} can't be a group's name in the online store", hint="use at most 200 bytes, no NUL"
        )
    return _VALUES + name + b"\0"


def _names(group: str, keys: Sequence[bytes]) -> list[bytes]:
    prefix = _prefix(group)
    return [prefix + key for key in keys]


def _parts(names: list[bytes]) -> Iterator[list[bytes]]:
    for start in range(0, len(names), _AT_ONCE):
        yield names[start : start + _AT_ONCE]


def _value(data: bytes | None) -> OnlineValue | None:
    return None if data is None else OnlineValue(_TIME.unpack_from(data)[0], data[8:])


def _escaped(text: bytes) -> bytes:
    return re.sub(rb"([*?\[\]\\])", rb"\\\1", text)
