"""Every request gets one answer, and nothing grows: requests good and bad, with deadlines, while versions change."""

from __future__ import annotations

import asyncio
import gc
import random
import re
import time
from collections.abc import Sequence
from typing import Any

import pytest
from doubler import Doubler
from test_trials import Many

from noria.registry import Deployment, Variant
from noria.serving import Limits, ModelServer
from noria.serving.exchange import Exchange
from noria.serving.protocol import HttpProtocol

LIMITS = Limits(max_body_bytes=2000, read_seconds=3.0, idle_seconds=5.0, max_wait_seconds=0.3)
POST = b"POST %b HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b"


class Moody(Many):
    """Rows for several entities; sometimes slow, sometimes crashing, and of many versions."""

    def answer(self, operation: str, requests: Sequence[Any]) -> Sequence[Any]:
        if any(request.do == "crash" for request in requests):
            raise (SystemExit if self.version % 2 else ZeroDivisionError)("by request")
        if any(request.do == "slow" for request in requests):
            time.sleep(0.005)
        return super().answer(operation, requests)


class Counting(ModelServer):
    """Remembers which exchanges have no answer yet."""

    def __init__(self, *servables: Any) -> None:
        super().__init__(servables, limits=LIMITS)
        self.open: set[Exchange] = set()
        self.handled = 0

    def handle(self, exchange: Exchange) -> None:
        self.handled += 1
        if self.handled % 1000 == 0:
            self.open = {one for one in self.open if one.answer is None}
        self.open.add(exchange)
        super().handle(exchange)


def request(random: random.Random) -> bytes:
    """A request; two in three are good ones."""
    extra = b"X-Request-Timeout: %dms\r\n" % random.randint(1, 60) if random.random() < 0.3 else b""
    if random.random() < 0.2:
        extra += b"X-Entity-Id: %d\r\n" % random.getrandbits(30)
    path = random.choice(
        [b"/models/doubler/predict"] * 4 + [b"/models/fast/predict"] * 4 + [b"/nothing/%d" % random.getrandbits(40)]
    )
    if path == b"/models/fast/predict":
        body = random.choice([b'{"x": 2}'] * 5 + [b'{"x": 1, "do": "crash"}', b'{"x": 1, "do": "unencodable"}', b"{"])
    else:
        xs = b",".join(b"%d" % random.getrandbits(20) for _ in range(random.randint(1, 4)))
        body = b'{"xs": [%b], "do": "%b"}' % (xs, random.choice([b""] * 30 + [b"slow", b"crash"]))
    return POST % (path, extra, len(body), body)


async def keep_asking(address: tuple[str, int], seed: int, count: int) -> int:
    """Requests on connections that are kept or dropped; each kept one gives one answer to each. How many there were."""
    own = random.Random(seed)
    sent = 0
    while sent < count:
        reader, writer = await asyncio.open_connection(*address)
        for _ in range(own.randint(1, 30)):
            several = min(own.choice([1, 1, 5, 100, 100]), max(1, count - sent))
            writer.write(b"".join(request(own) for _ in range(several)))
            sent += several
            if own.random() < 0.03:  # it leaves before it is answered
                if own.random() < 0.5:
                    writer.transport.abort()
                break
            for _ in range(several):
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
                assert int(head[9:12]) in (200, 400, 404, 500, 503, 504), head
                await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))  # type: ignore[index]
        else:
            last = own.choice([b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"])
            writer.write(last)
            assert (await asyncio.wait_for(reader.read(), 20)).count(b"HTTP/1.1 ") == 1  # and none too many before
        writer.close()
    return sent


async def change(server: Counting, over: asyncio.Event, pause: float) -> int:
    """Versions come and go, alone, under trial and with a shadow, until it is over."""
    version, number = 1, 0
    control: Any = server.models["doubler"].control
    while not over.is_set():
        await asyncio.sleep(pause)
        version, number = version + 1, number + 1
        fresh = Moody(version=version)
        await asyncio.to_thread(server.warm_up, fresh)
        if number % 4 == 0:
            server.swap(fresh)
            control = fresh
        else:
            versions = {control.version: control, version: fresh}
            shadow = Deployment(
                "doubler", number, "shadow", (Variant("champion", control.version, 1.0),), 0, shadow=version
            )
            variants = (Variant("canary", version, 0.5), Variant("champion", control.version, 0.5))
            split = Deployment("doubler", number, "canary", variants, 0)
            server.deploy("doubler", versions, control.version, shadow if number % 4 == 1 else split)
        quick = Doubler("fast", version)
        server.warm_up(quick)
        server.swap(quick)
    return version


def memory() -> int:
    gc.collect()
    with open("/proc/self/smaps_rollup") as file:  # noqa: PTH123
        return 1024 * int(re.search(r"Pss_Anon: +(\d+)", file.read())[1])  # type: ignore[index]


async def campaign(total: int, clients: int, pause: float) -> None:
    server = Counting(Moody(), Doubler("fast"))
    ready: asyncio.Future[tuple[str, int]] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(server.serve(on_ready=lambda host, port: ready.set_result((host, port))))
    address = await ready
    try:
        over = asyncio.Event()
        changing = asyncio.ensure_future(change(server, over, pause))
        sizes, done, rounds = [], 0, 5
        for turn in range(rounds):
            seeds = range(turn * clients, (turn + 1) * clients)
            done += sum(
                await asyncio.gather(*(keep_asking(address, seed, total // rounds // clients) for seed in seeds))
            )
            sizes.append((memory(), len(server._metrics.exposition().splitlines())))
        over.set()
        versions = await changing
        end = time.monotonic() + 20
        lanes = server._batches._lanes
        # What a shadow or a client that is gone has asked for may still be computed.
        while time.monotonic() < end and (
            any(one.answer is None for one in server.open) or any(lane.busy_until for lane in lanes.values())
        ):
            await asyncio.sleep(0.02)
        assert [one for one in server.open if one.answer is None] == []
        loaded = {lane.servable.version for lane in lanes.values()}
        assert len(loaded) <= 4
        for lane in lanes.values():
            assert (lane.exchanges, lane.busy_until) == ([], 0.0)
        for served in server.models.values():
            assert served.trial is None or served.trial._shadowed == 0
        server.open.clear()
        while server.connections:
            await asyncio.sleep(0.1)
    finally:  # uvloop would wait for what is still served
        server.stop()
        await serving
    del server, lanes
    gc.collect()
    left = [one for one in gc.get_objects() if issubclass(type(one), HttpProtocol | Exchange)]
    print(
        f"{done} requests, {versions} versions; memory {[f'{size / 1e6:.1f} MB' for size, _ in sizes]}; lines {[lines for _, lines in sizes]}"
    )
    assert left == []
    assert sizes[-1][0] - sizes[1][0] < 10_000_000
    assert sizes[-1][1] < 1500


@pytest.mark.parametrize(("total", "pause"), [(50_000, 0.02), pytest.param(1_000_000, 1.0, marks=pytest.mark.soak)])
def test_each_request_gets_one_answer_and_nothing_grows(total: int, pause: float) -> None:
    import uvloop

    uvloop.run(campaign(total, 16, pause))
