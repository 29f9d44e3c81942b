"""A replica for tests: GET /health/ready, and POST that answers with its pid. Start: `tiny_replica.py PORT MODE`."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

MODE = sys.argv[2] if len(sys.argv) > 2 else ""


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            line, *lines = head.decode().split("\r\n")
            headers = dict(row.lower().split(": ", 1) for row in lines if row)
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            method, path, _ = line.split(" ")
            if MODE == "hang":
                await asyncio.sleep(3600)
            if path.startswith("/slow"):
                await asyncio.sleep(0.5)
            if path.endswith("/burn"):
                sum(range(200_000))
            if path == "/forever":
                await asyncio.sleep(3600)
            status, answer = "200 OK", str(os.getpid()).encode()
            if path == "/health/ready" and MODE == "unready":
                status = "503 Service Unavailable"
            elif path == "/headers":
                answer = json.dumps(headers).encode()
            elif path == "/length":
                answer = str(len(body)).encode()
            elif path == "/die":
                os._exit(7)
            elif MODE == "fails" and not path.startswith("/health"):
                status = "500 Internal Server Error"
            elif headers.get("x-die") == "once" and not (mark := Path(os.environ["DIE_ONCE"])).exists():
                mark.touch()
                os._exit(7)
            start = f"HTTP/1.1 {status}\r\ncontent-length: {len(answer)}\r\n\r\n".encode()
            writer.write(start if method == "HEAD" else start + answer)  # at once: half an answer can't be retried
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    await server.serve_forever()


if MODE == "broken":
    sys.stderr.write("the model file is missing\n")
    sys.exit(3)
if __name__ == "__main__":
    asyncio.run(main())
