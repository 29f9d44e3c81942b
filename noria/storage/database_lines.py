"""Lines: a bounded number of connections to a database server, opened when they are needed and kept.

A thread takes a line, and no other has it until it is given back. After a fork the child opens lines of its own: its
parent's connections are left alone, for two processes that speak on one connection would hear each other's answers.
"""

from __future__ import annotations

import os
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from noria.core import StorageError

MOST = 4
"""Connections of one store in one process. A server has a hundred for everybody unless told otherwise."""
_WAIT_SECONDS = 30.0


class Line:
    """A place for a connection, which may be opened anew.

    Attributes:
        writer: who commits on this line; no two lines have the same.
        number: of the last commit on this line.
        sent: whether the server was told to make it durable, so that nobody but the server knows if it is.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        self.writer = secrets.token_hex(16)
        self.number = 0
        self.sent = False
        self._connect = connect
        self._connection: Any = None

    @property
    def connection(self) -> Any:
        """The connection, opened if there is none."""
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    @property
    def idle(self) -> bool:
        """Whether there is no connection."""
        return self._connection is None

    def drop(self) -> None:
        """Close the connection; the next use opens another one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None


class Lines:
    """The lines of one store. `connect` opens a connection."""

    def __init__(self, connect: Callable[[], Any], name: str) -> None:
        self._connect = connect
        self._name = name
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._change = threading.Condition()
        self._free = [Line(self._connect) for _ in range(MOST)]

    @contextmanager
    def taken(self) -> Iterator[Line]:
        """A line for the block.

        Raises:
            StorageError: the store is closed, or every line is in use for too long.
        """
        if self._owner != os.getpid():
            _of_parents.append(self._free)
            self._begin()
        with self._change:
            if not self._change.wait_for(lambda: self._free or self._closed, _WAIT_SECONDS):
                raise StorageError(
                    f"{self._name} has been busy for {_WAIT_SECONDS:.0f} s",
                    hint=f"all {MOST} connections of this process wait for answers: look at the server",
                )
            self._check_open()
            line = self._free.pop()  # the last that was given back: it has a connection
        try:
            yield line
        finally:
            with self._change:
                self._free.append(line)
                if self._closed:
                    line.drop()
                self._change.notify()

    def drop_idle(self) -> None:
        """Close what nobody uses: after one connection was lost, the others are likely lost too."""
        with self._change:
            for line in self._free:
                line.drop()

    def close(self) -> None:
        """Close every connection; those in use when they are given back."""
        self._closed = True
        if self._owner == os.getpid():
            self.drop_idle()
            with self._change:
                self._change.notify_all()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"{self._name} is closed")


_of_parents: list[list[Line]] = []
"""Kept in a child for as long as it lives: to let go of a connection is to close it, also for the parent."""
