"""An open-loop client: `PORT PATH BODY_FILE RATE SECONDS CONNECTIONS`; prints JSON with latencies in milliseconds.

Requests are due at random instants (exponential gaps, seeded) that don't wait for answers; a latency runs from the
instant at which its request was due, so that one which had to wait for a free connection is as late as it is.
"""

import json
import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

import httptools
import numpy as np

port, path, file = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
rate, seconds, connections = float(sys.argv[4]), float(sys.argv[5]), int(sys.argv[6])
body = file.read_bytes()
REQUEST = (
    f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(body)}\r\n\r\n"
).encode() + body
GRACE = 20.0
"""Seconds for the last answers."""
SPIN = 0.0015
"""Before a request is due the client doesn't sleep: epoll's timeouts are whole milliseconds."""


class Connection:
    """One connection, with at most one request under way."""

    def __init__(self) -> None:
        self.due: float | None = None
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.parser = httptools.HttpResponseParser(self)
        epoll.register(self.socket, select.EPOLLIN)
        by_descriptor[self.socket.fileno()] = self

    def close(self) -> None:
        epoll.unregister(self.socket)
        del by_descriptor[self.socket.fileno()]
        self.socket.close()

    def send(self, due: float) -> None:
        self.due = due
        try:
            self.socket.sendall(REQUEST)
        except OSError:
            self.fail()

    def receive(self) -> None:
        try:
            data = self.socket.recv(1 << 20)
        except OSError:
            data = b""
        if data:
            self.parser.feed_data(data)
        else:
            self.fail()

    def fail(self) -> None:
        """The server has closed: an error if it owed an answer."""
        global errors
        errors += self.due is not None
        self.close()
        self.open()
        self.rest()

    def on_message_complete(self) -> None:
        global errors
        if self.parser.get_status_code() != 200:
            errors += 1
        elif self.due is not None:
            latencies.append(time.perf_counter() - self.due)
        keep = self.parser.should_keep_alive()
        if not keep:
            self.close()
            self.open()
        self.rest()

    def rest(self) -> None:
        self.due = None
        idle.append(self)


epoll = select.epoll()
by_descriptor: dict[int, Connection] = {}
latencies: list[float] = []
errors = 0
# The last one to come back is the next to go: its path through the caches is warm, and few are used if few are needed.
idle = [Connection() for _ in range(connections)]
dues = deque(np.cumsum(np.random.default_rng(0).exponential(1 / rate, int(rate * seconds))).tolist())
count, waiting = len(dues), deque[float]()
began = time.perf_counter()
end = began + dues[-1] + GRACE
while len(latencies) + errors < count:
    now = time.perf_counter()
    if now > end:
        break
    while dues and began + dues[0] <= now:
        waiting.append(began + dues.popleft())
    while waiting and idle:
        idle.pop().send(waiting.popleft())
    left = (began + dues[0] if dues else end) - time.perf_counter()
    for descriptor, _ in epoll.poll(max(0, int((left - SPIN) * 1000)) / 1000):
        if descriptor in by_descriptor:
            by_descriptor[descriptor].receive()
errors += count - len(latencies) - errors  # what was never answered is an error too
middle, late = np.percentile(latencies, [50, 99]) * 1000 if latencies else (float("nan"), float("nan"))
took = time.perf_counter() - began
print(json.dumps({"rate": len(latencies) / took, "p50": float(middle), "p99": float(late), "errors": errors}))
