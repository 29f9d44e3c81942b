"""A wire to a server that can be cut at a word: before the server hears it, or after, when the answer is lost."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from types import TracebackType


class WireCutter:
    """Listens on `port` and passes everything on to the server's port."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._word = b""
        self._deliver = False
        self._for_ever = False
        self._cut_for_good = False
        self._passes = threading.Event()
        self._passes.set()
        self._threads: list[threading.Thread] = []
        self._ends: list[socket.socket] = []
        self.cuts = 0
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port: int = self._listener.getsockname()[1]

    def cut(self, word: bytes, *, deliver: bool, for_ever: bool = False) -> None:
        """Cut the next connection over which a client says this word; if `deliver`, the server still hears it."""
        self._word, self._deliver, self._for_ever = word, deliver, for_ever

    def down(self) -> None:
        """Cut every connection and take no new one."""
        self._cut_for_good = True
        for end in list(self._ends):
            _end(end)

    def hold(self) -> None:
        """Pass nothing on, as a machine that hangs."""
        self._passes.clear()

    def up(self) -> None:
        """Take connections again, and pass on what comes."""
        self._cut_for_good = False
        self._passes.set()

    def __enter__(self) -> WireCutter:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._passes.set()
        for end in (self._listener, *self._ends):
            _end(end)  # `close` alone doesn't wake a thread that waits
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._ends):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._ends.append(client)
            if self._cut_for_good:
                _end(client)
                continue
            server = socket.create_connection(("127.0.0.1", self._server_port))
            self._ends.append(server)
            self._start(self._forward, client, server)
            self._start(self._back, server, client)

    def _start(self, work: Callable[..., None], *ends: socket.socket) -> None:
        self._threads.append(threading.Thread(target=work, args=ends, daemon=True))
        self._threads[-1].start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        while data := _received(client):
            self._passes.wait()
            if self._word and self._word in data:
                self._word = b""
                self._cut_for_good = self._for_ever
                self.cuts += 1
                _end(client)
                if self._deliver:
                    server.sendall(data)
                    # The server's end of the wire stays open until it has done what it heard.
                    server.shutdown(socket.SHUT_WR)
                else:
                    _end(server)
                return
            try:
                server.sendall(data)
            except OSError:
                break
        _end(server)

    def _back(self, server: socket.socket, client: socket.socket) -> None:
        while data := _received(server):
            try:
                client.sendall(data)
            except OSError:
                continue  # the client's end has been cut: the answer is lost
        _end(client)


def _received(end: socket.socket) -> bytes:
    try:
        return end.recv(65_536)
    except OSError:
        return b""


def _end(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
