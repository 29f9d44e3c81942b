"""The ceiling: the same request, arithmetic and answer in a bare asyncio protocol: `MODEL.json PORT`.

httptools parses, msgspec decodes and encodes, NumPy multiplies, uvloop runs; no validation but the types', no metrics,
no log, one model, one path.
"""

import asyncio
import json
import math
import sys
from pathlib import Path

import httptools
import msgspec
import numpy as np
import uvloop

weights = json.loads(Path(sys.argv[1]).read_text())
COEFFICIENTS, INTERCEPT = np.array(weights["coefficients"]), weights["intercept"]
Row = msgspec.defstruct("Row", [(name, float) for name in weights["names"]])
Request = msgspec.defstruct("Request", [("instances", list[Row])])


class Answer(msgspec.Struct):
    predictions: list[bool]
    scores: list[float]


decode, encode = msgspec.json.Decoder(Request).decode, msgspec.json.Encoder().encode
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"


class Bare(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        answer = b"{}"  # to a health check
        if self.body:
            matrix = np.array([msgspec.structs.astuple(row) for row in decode(self.body).instances])
            scores = [1 / (1 + math.exp(-value)) for value in (matrix @ COEFFICIENTS + INTERCEPT).tolist()]
            answer = encode(Answer([score > 0.5 for score in scores], scores))
        self.body = b""
        self.transport.write(HEAD % (len(answer), answer))  # type: ignore[attr-defined]


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Bare, "127.0.0.1", int(sys.argv[2]))
    await server.serve_forever()


uvloop.run(main())
