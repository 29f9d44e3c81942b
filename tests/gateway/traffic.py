"""Clients that never cease to ask, and count what goes wrong."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit


@dataclass
class Answers:
    failures: list[object] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)

    def since(self, mark: int) -> set[bytes]:
        return set(self.bodies[mark:])


def request(url: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        connection.request("POST", path, body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextmanager
def traffic(url: str, clients: int = 4, path: str = "/predict", keep_alive: bool = True) -> Iterator[Answers]:
    """Clients with a connection each (or a new one for each request) for as long as the block runs."""
    answers, over, parts = Answers(), threading.Event(), urlsplit(url)

    def client() -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        while not over.is_set():
            try:
                connection.request("POST", path, b"x" * 2000)
                response = connection.getresponse()
                body = response.read()
                if response.status == 200:
                    answers.bodies.append(body)
                else:
                    answers.failures.append((response.status, body))
                if not keep_alive:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                answers.failures.append(repr(error))
                connection.close()
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.02)
