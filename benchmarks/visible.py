"""From an event's arrival over HTTP until it can be seen in the online store, while many others arrive."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import noria as nr
from benchmarks.measure import markdown
from noria.cli.init import write_project
from noria.cli.project import load_system
from noria.gateway.ports import free_port

NORIA = str(Path(sys.executable).parent / "noria")
RATE = 5_000
BATCH = 10
"""Events of one request; ten from one page are usual."""
SECONDS = 10
STREAM = """
clicks = nr.Stream("clicks", schema={"user": "int64", "n": "int64", "at": nr.Timestamp("us")}, key="user",
                   online=[nr.LatestRow("user")])
system = nr.System("movies", [ratings, movies, taste, popularity, movies_for_you, clicks])
"""


def run() -> str:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "shop"
        write_project(root, "recommender")
        with (root / "system.py").open("a") as file:
            file.write(STREAM)
        subprocess.run([NORIA, "run"], cwd=root, check=True, capture_output=True)
        port = free_port()
        words = [NORIA, "serve", "--with-stream", "--port", str(port)]
        environ = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
        server = subprocess.Popen(words, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environ)
        try:
            _until_ready(port)
            sent, seconds, delays = asyncio.run(_measure(root, port))
        finally:
            server.terminate()
            server.wait(30)
    delays.sort()
    p50, p99 = (delays[int(len(delays) * share)] * 1000 for share in (0.5, 0.99))
    return markdown(
        "Event in by HTTP → visible in an online read",
        ("events/s sent", "p50 ms", "p99 ms", "worst ms", "looked at"),
        [(f"{sent / seconds:,.0f}", f"{p50:.1f}", f"{p99:.1f}", f"{delays[-1] * 1000:.1f}", len(delays))],
        f"`noria serve --with-stream`: two servers behind HAProxy, the log, the stream processor, LMDB; requests of {BATCH} "
        f"events at a fixed rate for {SECONDS} s, all on the same cores. The clock runs from before the request until a "
        "read gives the event. Bars: p50 20 ms, p99 100 ms at 5,000 events/s.",
    )


def _until_ready(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=1).close()
            break
        except (OSError, urllib.error.URLError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    time.sleep(5)  # the stream's processor starts beside the servers


async def _measure(root: Path, port: int) -> tuple[int, float, list[float]]:
    stream: Any = load_system(root)["clicks"]
    sink = stream.online[0]
    with nr.Workspace.open(replace(nr.Settings.load(root), root=root)) as workspace:
        delays: list[float] = []
        tasks = [asyncio.create_task(_send(port, number, delays, workspace, sink, stream)) for number in range(8)]
        began = time.perf_counter()
        sent = sum(await asyncio.gather(*tasks))
        return sent, time.perf_counter() - began, delays


async def _send(port: int, number: int, delays: list[float], workspace: Any, sink: Any, stream: Any) -> int:
    """One connection that sends its share of the rate, and watches one event of every twentieth request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    pause = BATCH / (RATE / 8)
    began, requests, watching = time.perf_counter(), 0, []
    while (at := began + requests * pause) < began + SECONDS:
        await asyncio.sleep(max(0.0, at - time.perf_counter()))
        n = int(time.time() * 1_000_000)
        events = [{"user": number * 1_000 + requests * BATCH % 990 + i, "n": n, "at": n + i} for i in range(BATCH)]
        body = json.dumps({"stream": "clicks", "events": events}).encode()
        head = (
            f"POST /events HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        started = time.perf_counter()
        if requests % 20 == number:
            watching.append(asyncio.create_task(_watch(started, events[-1], delays, workspace, sink, stream)))
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200"), answer
        await reader.readexactly(int(answer.lower().partition(b"content-length:")[2].split()[0]))
        requests += 1
    await asyncio.gather(*watching)
    writer.close()
    return requests * BATCH


async def _watch(
    started: float, event: dict[str, int], delays: list[float], workspace: Any, sink: Any, stream: Any
) -> None:
    while True:
        (found,) = sink.read(workspace.online, stream, [event["user"]])
        if found is not None and found["n"] >= event["n"]:
            delays.append(time.perf_counter() - started)
            return
        if time.perf_counter() - started > 20:
            raise RuntimeError(f"{event} can't be seen")
        await asyncio.sleep(0.001)
