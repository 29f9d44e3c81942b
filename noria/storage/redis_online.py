"""Online store in Redis (or Valkey): one packed value a key, read by one `MGET`.

How durable a write is, is the server's to decide (`appendonly yes`, `appendfsync always` or `everysec`), and so is
what happens when its memory is full: `maxmemory-policy` has to be `noeviction`, or values vanish.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar

from noria.core import ConfigError, ConflictError, MissingExtraError, StorageError
from noria.storage import redis_scripts as scripts
from noria.storage.online import TIME, Mark, Merge, OnlineValue, UnreachableError, pack, unpack

CONNECT_SECONDS, ANSWER_SECONDS = 2.0, 5.0
IMPATIENT_SECONDS = 0.3
"""What a server of requests waits for either: far longer than a read takes."""
_VALUES, _MARKS = b"noria:values:", b"noria:marks"
_TRIES = 200
_AT_ONCE = 20_000
_MOST = 250_000  # what a server takes in one command is 1,048,576 words

T = TypeVar("T")


class RedisOnline:
    """`OnlineStore` at `redis://[user:password@]host:port/db`, `rediss://…` or `unix://…`.

    A server that doesn't answer is an `UnreachableError` within 2 seconds to connect and 5 to answer; when it is back,
    the next call finds it. A group is dropped in pieces, so that other readers needn't wait: meanwhile they see a part.

    Args:
        url: where the server is.
        jitter: how long to wait after another writer came between.
        seconds: the most to wait for a connection, and for an answer, where that is less than usual.
    """

    def __init__(self, url: str, *, jitter: random.Random | None = None, seconds: float = math.inf) -> None:
        # Nothing of a user, a password or an option is ever shown.
        self._shown = re.sub(r"://.*@", "://***@", url.partition("?")[0])
        self._jitter = jitter or random.Random()
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise MissingExtraError("redis", "redis", f"the online store {self._shown}") from error
        self._redis = redis
        try:
            self._client: Any = redis.Redis.from_url(
                url,
                socket_connect_timeout=min(seconds, CONNECT_SECONDS),
                socket_timeout=min(seconds, ANSWER_SECONDS),
                protocol=2,
                retry=Retry(NoBackoff(), 0),  # the client would send again what was perhaps done
            )
        except ValueError:
            # What was wrong may be a part of the password, so the cause isn't shown.
            raise ConfigError(
                f"storage.online = {self._shown!r} is no URL of Redis", hint="redis://HOST:6379/0"
            ) from None

    def write(
        self,
        group: str,
        keys: Sequence[bytes],
        times: Sequence[int],
        values: Sequence[bytes],
        *,
        mark: Mark | None = None,
    ) -> int:
        names, packed = _names(group, keys), pack(times, values)
        if not names and mark is None:
            return 0
        parts = range(0, max(len(names), 1), _AT_ONCE)
        commands = []
        for start in parts:
            # All parts look at the mark, the last one moves it.
            words = _mark_words(mark, moves=start == parts[-1])
            commands.append((names[start : start + _AT_ONCE], [*words, *packed[start : start + _AT_ONCE]]))
        # A write without a mark may be done twice, so it can be sent again.
        answers = self._run(lambda: self._evaluate(scripts.WRITE, commands), again=mark is None)
        return sum(_done(answer, mark) for answer in answers)

    def update(self, group: str, keys: Sequence[bytes], merge: Merge, *, mark: Mark | None = None) -> None:
        names = _names(group, keys)
        if len(names) > _MOST:
            raise StorageError(f"an update of {len(names)} keys is too much for {self._shown}", hint="make it smaller")
        if not names and mark is None:
            return
        for attempt in range(_TRIES):
            old, now = self._run(lambda: self._present(names, mark), again=True)
            _verify(mark, now)
            times, values = merge(unpack(old))
            packed = [value for _, value in zip(names, pack(times, values), strict=True)]
            command = (names, [*_mark_words(mark), _digest(old), *packed])
            if _done(self._run(lambda: self._evaluate(scripts.UPDATE, [command]))[0], mark):  # noqa: B023 - called here
                return
            time.sleep(self._jitter.random() * min(0.05, 0.001 * (attempt + 1)))  # so that two don't stay in step
        raise StorageError(
            f"the online store {self._shown}: other writers came between {_TRIES} times",
            hint="do several streams write the same keys? give the topic a key",
        )

    def marks(self, prefix: str = "") -> dict[str, int]:
        found = self._run(lambda: self._client.hgetall(_MARKS), again=True)
        names = sorted((name.decode(), int(value)) for name, value in found.items())
        return {name: value for name, value in names if name.startswith(prefix)}

    def read(self, group: str, keys: Sequence[bytes]) -> list[OnlineValue | None]:
        names = _names(group, keys)
        return unpack(self._run(lambda: self._get(names), again=True))

    def count(self, group: str) -> int:
        return self._run(lambda: len(self._entries(group)), again=True)

    def expire(self, group: str, keys: Sequence[bytes], seconds: int) -> None:
        def work() -> None:
            for some in _parts(_names(group, keys), _AT_ONCE):
                with self._client.pipeline(transaction=False) as pipe:
                    for name in some:
                        pipe.execute_command("EXPIRE", name, seconds)
                    pipe.execute()

        self._run(work, again=True)

    def drop(self, group: str, *, older_than: int | None = None) -> None:
        def remove() -> None:
            for some in _parts(self._entries(group), 5_000):
                if older_than is None:
                    self._client.unlink(*some)
                else:
                    self._evaluate(scripts.DROP, [(some, [TIME.pack(older_than)])])

        self._run(remove, again=True)

    def close(self) -> None:
        self._client.close()

    def _get(self, names: list[bytes]) -> list[bytes | None]:
        if len(names) == 1:  # what a server asks most
            return [self._client.get(names[0])]
        if len(names) <= _AT_ONCE:
            return self._client.mget(names) if names else []
        return [value for some in _parts(names, _AT_ONCE) for value in self._client.mget(some)]

    def _present(self, names: list[bytes], mark: Mark | None) -> tuple[list[bytes | None], bytes | None]:
        # What is read here need not belong together: the update looks whether all of it is still there.
        now = None if mark is None else self._client.hget(_MARKS, mark.name.encode())
        return self._get(names), now

    def _entries(self, group: str) -> list[bytes]:
        # A set for each group would cost every write as much again; a scan may give a key twice.
        return list(set(self._client.scan_iter(match=_escaped(_prefix(group)) + b"*", count=5000)))

    def _evaluate(self, script: scripts.Script, commands: list[tuple[list[bytes], list[Any]]]) -> list[Any]:
        """Run the script on each of the commands, all of them in one transaction."""
        for _ in range(2):
            with self._client.pipeline(transaction=len(commands) > 1) as pipe:
                for names, words in commands:
                    pipe.execute_command("EVALSHA", script.digest, len(names) + 1, _MARKS, *names, *words)
                try:
                    return list(pipe.execute())
                except self._redis.exceptions.NoScriptError:
                    # Nothing was done: a server that was started anew knows none of the scripts.
                    self._client.script_load(script.text)
        raise StorageError(f"the online store {self._shown} forgets its scripts", hint="is something flushing them?")

    def _run(self, work: Callable[[], T], *, again: bool = False) -> T:
        """Do the work; what may be done twice is done again when the connection broke."""
        try:
            try:
                return work()
            except self._redis.ConnectionError:
                if not again:
                    raise
                return work()
        except self._redis.RedisError as error:
            gone = isinstance(error, (self._redis.ConnectionError, self._redis.TimeoutError))
            raise (UnreachableError if gone else StorageError)(
                f"the online store {self._shown} can't be used: {error}",
                hint="is the server up, and does storage.online name its host, port and password?",
            ) from error


def _mark_words(mark: Mark | None, *, moves: bool = True) -> list[Any]:
    if mark is None:
        return [0, "", "", ""]
    return [2 if moves else 1, mark.name.encode(), mark.before, mark.after]


def _done(answer: Any, mark: Mark | None) -> int:
    """The number that a script gives, if it doesn't give what the mark is."""
    if isinstance(answer, bytes):
        _verify(mark, answer)
    return int(answer)


def _verify(mark: Mark | None, present: bytes | None) -> None:
    now = -1 if present is None else int(present)
    if mark is not None and now != mark.before:
        raise ConflictError(
            f"the mark {mark.name!r} of the online store is {now}, expected {mark.before}: another process was here",
            hint="nothing was written; read the mark and go on from there",
        )


def _digest(values: list[bytes | None]) -> str:
    """What `UPDATE` computes of the values that are there."""
    sizes = ",".join(["-1" if value is None else str(len(value)) for value in values])
    return hashlib.sha1(sizes.encode() + b"|" + b"".join(filter(None, values)), usedforsecurity=False).hexdigest()


@lru_cache(1024)
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


def _parts(names: list[bytes], size: int) -> Iterator[list[bytes]]:
    for start in range(0, len(names), size):
        yield names[start : start + size]


def _escaped(text: bytes) -> bytes:
    return re.sub(rb"([*?\[\]\\])", rb"\\\1", text)
