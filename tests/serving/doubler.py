from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import msgspec

from noria.core import RequestError
from noria.core.bodies import decode


class Ask(msgspec.Struct, forbid_unknown_fields=True):
    x: float
    do: str = "double"


class Doubler:
    """Answers with twice the number; or does what a test asks it to do."""

    operations = ("predict",)

    def __init__(self, model: str = "doubler", version: int = 1) -> None:
        self.model = model
        self.version = version
        self.batches: list[int] = []
        self.closed = False
        self._decoder = msgspec.json.Decoder(Ask)

    def decode(self, operation: str, body: bytes) -> Ask:
        return decode(self._decoder, body)

    def answer(self, operation: str, requests: Sequence[Ask]) -> Sequence[Any]:
        self.batches.append(len(requests))
        if any(request.do == "crash" for request in requests):
            raise ZeroDivisionError("by request")
        return [self._answer(request) for request in requests]

    def _answer(self, request: Ask) -> Any:
        if request.do == "refuse":
            return RequestError("not this one", status=409, field="x")
        if request.do == "large":
            return {"data": "x" * 5_000_000}
        if request.do == "unencodable":
            return {"data": object()}
        value = float("nan") if request.do == "nan" else request.x * 2
        return {"value": value, "model": self.model, "version": self.version}

    def warm_up(self) -> None:
        self.answer("predict", [Ask(1.0)])

    def describe(self, operation: str) -> dict[str, Any]:
        (schema,), parts = msgspec.json.schema_components([Ask], ref_template="#/components/schemas/{name}")
        return {"request": schema, "response": {"type": "object"}, "components": parts, "example": {"x": 1.5}}

    def close(self) -> None:
        self.closed = True


def exchange(address: tuple[str, int], data: bytes, *, half_close: bool = False, timeout: float = 10) -> bytes:
    """Send bytes and read until the server closes, or falls silent for 0.5 s after an answer."""
    with socket.create_connection(address, timeout=timeout) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        while True:
            try:
                part = connection.recv(1 << 20)
            except (TimeoutError, ConnectionResetError):
                return received
            if not part:
                return received
            received += part
            connection.settimeout(0.5)
