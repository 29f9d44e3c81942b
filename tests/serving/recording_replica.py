"""A model server that writes down what it took for requests: `recording_replica.py PORT FILE [MAX_BODY]`."""

from __future__ import annotations

import sys
from pathlib import Path

from doubler import Doubler

from noria.core import RequestError
from noria.serving import Limits, ModelServer
from noria.serving.exchange import Exchange


class Recording(ModelServer):
    """Appends a line for each request, but for health checks."""

    def __init__(self, file: Path, max_body: int) -> None:
        super().__init__([Doubler()], limits=Limits(max_body_bytes=max_body))
        self._file = file.open("ab", buffering=0)

    def handle(self, exchange: Exchange) -> None:
        if exchange.path != b"/health/ready":
            self._file.write(b"%b %b %b\n" % (exchange.method, exchange.path, exchange.body[:100].hex().encode()))
        super().handle(exchange)

    def refuse(self, exchange: Exchange, error: RequestError) -> None:
        self._file.write(b"refused %d\n" % error.status)
        super().refuse(exchange, error)


if __name__ == "__main__":
    limit = int(sys.argv[3]) if len(sys.argv) > 3 else 1_048_576
    Recording(Path(sys.argv[2]), limit).run(port=int(sys.argv[1]))
