"""Listeners: the listening sockets of one gateway."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from noria.gateway.ports import listen


@dataclass(frozen=True)
class Listeners:
    """Where clients come in.

    Attributes:
        public: over HTTP.
        metrics: for HAProxy's own metrics.
        grpc: over gRPC; None where nobody may.
    """

    public: socket.socket
    metrics: socket.socket
    grpc: socket.socket | None = None

    @classmethod
    def open(cls, host: str, port: int, grpc_port: int | None = None) -> Self:
        """New ones; a port 0 takes any free one, and without `grpc_port` nobody comes in over gRPC.

        Raises:
            ConfigError: when a port or the host can't be used on this machine.
            GatewayError: when somebody else has a port.
        """
        with ExitStack() as undo:
            public = undo.enter_context(listen(host, port))
            metrics = undo.enter_context(listen("127.0.0.1", 0))
            grpc = None if grpc_port is None else undo.enter_context(listen(host, grpc_port))
            undo.pop_all()
        return cls(public, metrics, grpc)

    @property
    def sockets(self) -> tuple[socket.socket, ...]:
        """All; that for gRPC comes last."""
        return (self.public, self.metrics, *([self.grpc] if self.grpc else []))

    @property
    def ports(self) -> tuple[int, ...]:
        """The number of each."""
        return tuple(int(each.getsockname()[1]) for each in self.sockets)

    def close(self) -> None:
        """Close our copies."""
        for each in self.sockets:
            each.close()
