"""One health check: is a server ready for requests?"""

from __future__ import annotations

import asyncio

READY_PATH = "/health/ready"
"""Where a server says whether it is ready: status 200 means yes."""


async def probe(host: str, port: int, timeout: float, path: str = READY_PATH) -> int | None:
    """The status of `GET path`, or None when no HTTP answer came within `timeout` seconds.

    The time limit holds for the whole exchange, so a server that sends a byte now and then can't stretch it.
    """
    try:
        async with asyncio.timeout(timeout):
            return await _status(host, port, path)
    except (OSError, ValueError, asyncio.LimitOverrunError, TimeoutError):
        return None


async def _status(host: str, port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: noria\r\nConnection: close\r\n\r\n".encode())
        version, status, *_ = (await reader.readline()).split(b" ", 2)
        if not version.startswith(b"HTTP/1."):
            raise ValueError(version)
        return int(status)
    finally:
        writer.close()
