"""Load for a campaign: clients that ask at a constant rate, and write down what became of every single request."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

Body = Callable[[int], str]
_PATIENCE = 30.0
_TRIES = 20


@dataclass(frozen=True)
class Kind:
    """What one sort of client asks for.

    Attributes:
        name: of the sort.
        path: where it asks.
        rate: requests a second.
        body: of the n-th request.
        resends: it sends again what may have been lost, as the producer of events that numbers its batches does.
    """

    name: str
    path: str
    rate: float
    body: Body
    resends: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request; status 0 where there was no answer."""

    at: float
    seconds: float
    kind: str
    status: int
    body: bytes
    resent: int = 0
    retry_after: str = ""
    content_type: str = ""

    @property
    def done(self) -> float:
        return self.at + self.seconds

    @property
    def is_clear(self) -> bool:
        """Whether it is a refusal as it has to be: a problem document that says when to come again."""
        return self.status == 503 and bool(self.retry_after) and self.content_type == "application/problem+json"


@dataclass
class Load:
    """Clients at work.

    Attributes:
        answers: all of them, in the order of their ends.
        pings: when Redis was asked by a client of its own, and the seconds that it took to answer.
        extra: requests a second on top, by kind.
    """

    port: int
    kinds: Sequence[Kind]
    headers: Mapping[str, str]
    redis_port: int
    answers: list[Answer] = field(default_factory=list)
    pings: list[tuple[float, float]] = field(default_factory=list)
    extra: dict[str, float] = field(default_factory=dict)
    _idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    _over: bool = False

    async def run(self) -> None:
        watch = asyncio.create_task(self._ping())
        await asyncio.gather(*(self._pace(kind) for kind in self.kinds))
        watch.cancel()
        for _, writer in self._idle:
            writer.close()

    def stop(self) -> None:
        self._over = True

    def was_late(self, answer: Answer) -> bool:
        """Whether Redis itself was too slow about then: on a busy machine it may be."""
        near = [seconds for at, seconds in self.pings[-20_000:] if at < answer.done and at + seconds > answer.at - 1.0]
        return max(near, default=math.inf) > 0.2

    async def _ping(self) -> None:
        """Ask Redis ten times a second how it is."""
        while True:
            started = time.monotonic()
            with contextlib.suppress(OSError, EOFError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.redis_port)
                with contextlib.closing(writer):
                    writer.write(b"PING\r\n")  # any answer will do, even that a password is missing
                    await reader.readline()
            self.pings.append((started, time.monotonic() - started))
            await asyncio.sleep(0.1)

    async def _pace(self, kind: Kind) -> None:
        """Send each request at its time, however long the others take."""
        number, due, running = 0, time.monotonic() + random.random() / kind.rate, set()
        while not self._over:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            number += 1
            running.add(task := asyncio.create_task(self._ask(kind, kind.body(number))))
            task.add_done_callback(running.discard)
            due += 1.0 / (kind.rate + self.extra.get(kind.name, 0.0))
        await asyncio.gather(*running)

    async def _ask(self, kind: Kind, body: str) -> None:
        lines = [f"POST {kind.path} HTTP/1.1", "host: noria", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        data = ("\r\n".join(lines) + "\r\n\r\n" + body).encode()
        started, resent = time.monotonic(), 0
        while True:
            status, headers, content = await self._exchange(data)
            if not (kind.resends and status in (0, 502, 503) and resent < _TRIES):
                break
            resent += 1
            await asyncio.sleep(0.2)
        seconds = time.monotonic() - started
        more = (resent, headers.get("retry-after", ""), headers.get("content-type", ""))
        self.answers.append(Answer(started, seconds, kind.name, status, content[:600], *more))

    async def _exchange(self, data: bytes) -> tuple[int, dict[str, str], bytes]:
        writer = None
        try:
            async with asyncio.timeout(_PATIENCE):
                reader, writer = self._kept() or await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(data)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:])}
                content = await reader.readexactly(int(headers["content-length"]))
        except (OSError, EOFError, TimeoutError, ValueError, LookupError) as error:
            if writer is not None:
                writer.close()
            return 0, {}, repr(error).encode()
        if headers.get("connection", "") == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return int(head[0].split()[1]), headers, content

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """A connection that its other end hasn't closed, as far as is known."""
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return None


@contextmanager
def load(port: int, kinds: Sequence[Kind], headers: Mapping[str, str], redis_port: int) -> Iterator[Load]:
    """Clients in a thread of their own for the block."""
    made = Load(port, kinds, headers, redis_port)
    thread = threading.Thread(target=lambda: asyncio.run(made.run()), name="load")
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        with contextlib.suppress(RuntimeError):
            thread.join()
