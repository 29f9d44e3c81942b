"""A replica for tests that speaks the Open Inference Protocol; its model answers with its pid.

Start: `grpc_replica.py PORT GRPC_PORT`. The one input `do` says what it does: `answer`, `slow` (0.5 s), `die` (kill
itself with SIGKILL, once: then the file `DIE_ONCE` is there), or `refuse`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from noria.core import RequestError, Schema
from noria.serving import ModelServer
from noria.serving.grpc_door import GrpcDoor


class Pid:
    model, version, operations = "pid", 1, ("predict",)
    inputs = Schema.of({"do": "str"})
    outputs = {"predictions": "int64"}  # noqa: RUF012
    lookup = None

    def table(self, columns: Any) -> Any:
        return list(columns["do"])

    decode = warm_up = close = lambda self, *_: None

    def describe(self, operation: str) -> Any:
        return {"request": {}, "response": {}, "example": {}}

    def columns(self, answer: Any) -> Any:
        return {"predictions": [os.getpid()] * len(answer)}

    def answer(self, operation: str, requests: Sequence[Any]) -> Sequence[Any]:
        return [self._one(request) for request in requests]

    def _one(self, rows: Any) -> Any:
        if "slow" in rows:
            time.sleep(0.5)
        if "die" in rows and not (mark := Path(os.environ["DIE_ONCE"])).exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return RequestError("not this one", status=409) if "refuse" in rows else rows


if __name__ == "__main__":
    port, grpc_port = map(int, sys.argv[1:])
    ModelServer([Pid()], grpc=GrpcDoor(port=grpc_port)).run("127.0.0.1", port)
