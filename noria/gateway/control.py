"""Control: another process asks a running gateway to change, over a Unix socket in its run directory.

One connection, one request: a line of JSON such as `{"do": "scale", "minimum": 3}`. Lines come back: what happens on
the way, `{"event": "replica_ready", …}`, and at last `{"result": …}` or `{"error": …}`, a problem as of RFC 9457. Only
the user whom the gateway runs as can open the socket (mode 0600). A request goes on when the asker has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from noria.core.errors import ConfigError, NoriaError, NotFoundError, RequestError, allowed
from noria.gateway.errors import GatewayError, NoGatewayError
from noria.gateway.run_directory import sockets_of

SOCKET_NAME = "control.sock"
_LONGEST = 65_536
Operations: TypeAlias = Mapping[str, Callable[..., Awaitable[Any]]]


@dataclass(frozen=True)
class Descriptors:
    """A result that is open files, sent as such."""

    numbers: tuple[int, ...]


class Control:
    """The gateway's end of the socket.

    Args:
        path: the socket.
        operations: what can be done, by name, with the request's other fields as arguments.
    """

    def __init__(self, path: Path, operations: Operations) -> None:
        self._path = path
        self._operations = operations
        self._listeners: set[asyncio.StreamWriter] = set()

    async def run(self) -> None:
        """Answer, for ever."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        self._path.chmod(0o600)  # nobody can have connected before: it doesn't listen yet
        async with await asyncio.start_unix_server(self._answer, sock=listener, limit=_LONGEST):
            await asyncio.get_running_loop().create_future()

    def tell(self, event: str, fields: Mapping[str, Any]) -> None:
        """Let those who wait for an answer know what happens."""
        for writer in self._listeners:
            _send(writer, {"event": event, **{name: str(value) for name, value in fields.items()}})

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._listeners.add(writer)
            result = await self._do(await reader.readline())
            if isinstance(result, Descriptors):
                with writer.get_extra_info("socket").dup() as connection:
                    socket.send_fds(connection, [b'{"result": null}\n'], result.numbers)
                writer.close()
                return
            answer = {"result": result}
        except NoriaError as error:
            answer = {"error": error.to_problem()}
        except (ValueError, ConnectionError) as error:  # a line that is too long, or an asker that has gone
            answer = {"error": RequestError(f"the request can't be read: {error}").to_problem()}
        except Exception as error:  # a bug of ours; the gateway goes on
            answer = {"error": GatewayError(f"{type(error).__name__}: {error}").to_problem()}
        finally:
            self._listeners.discard(writer)
        _send(writer, answer)
        writer.close()

    async def _do(self, line: bytes) -> Any:
        try:
            request = json.loads(line)
            name = request.pop("do")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise RequestError("a request is a line of JSON", hint='as {"do": "servers"}') from error
        operation = self._operations.get(name) if isinstance(name, str) else None
        if operation is None:
            raise RequestError(f"nothing is called {name!r}", hint=allowed(self._operations, str(name)), field="do")
        try:
            work = operation(**request)
        except TypeError as error:
            raise RequestError(f"{name}: {error}", hint="the fields are the operation's arguments") from error
        return await work


def ask(run_dir: Path | str, do: str, **fields: Any) -> Any:
    """Ask the gateway that runs in a directory; returns its result.

    Raises:
        NoGatewayError: no gateway runs there.
        ConfigError, NotFoundError, GatewayError: what it answers when it can't.
    """
    return _result(conversation(run_dir, do, **fields))


def ask_at(path: Path, do: str, **fields: Any) -> Any:
    """Like `ask`, of the gateway with this socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return _result(_lines(connection, do, fields))


def _result(lines: Iterator[dict[str, Any]]) -> Any:
    for line in lines:
        if "result" in line:
            return line["result"]
    raise GatewayError("the gateway has ended before it answered", hint="its logs tell why")


def conversation(run_dir: Path | str, do: str, **fields: Any) -> Iterator[dict[str, Any]]:
    """Like `ask`, with all that happens on the way; the last line has the `result`."""
    return _lines(reach(run_dir), do, fields)


def reach(run_dir: Path | str) -> socket.socket:
    """A connection to the gateway that runs in a directory.

    Raises:
        NoGatewayError: none does.
        GatewayError: it isn't ours.
    """
    connection, sockets = socket.socket(socket.AF_UNIX), sockets_of(run_dir)
    try:
        if sockets is None:
            raise FileNotFoundError
        connection.connect(str(sockets / SOCKET_NAME))
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise NoGatewayError(
            f"no gateway runs in {str(run_dir)!r}", hint="start it: noria serve, in the project's folder"
        ) from error
    except PermissionError as error:
        connection.close()
        raise GatewayError("the gateway runs as another user", hint="ask as that user") from error
    return connection


def _lines(connection: socket.socket, do: str, fields: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    with contextlib.closing(connection):
        connection.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
        with connection.makefile("rb") as lines:
            for text in lines:
                line = json.loads(text)
                if "error" in line:
                    raise _error(line["error"])
                yield line


def _error(problem: Mapping[str, Any]) -> NoriaError:
    """The error that a problem document tells, as far as it makes a difference to who asks."""
    kinds: dict[str, type[NoriaError]] = {kind("").code: kind for kind in (ConfigError, NotFoundError)}
    kind = kinds.get(str(problem.get("type", "")).rpartition(":")[2], GatewayError)
    return kind(problem.get("detail", "it can't"), hint=problem.get("hint", ""), field=problem.get("field"))


def _send(writer: asyncio.StreamWriter, line: Mapping[str, Any]) -> None:
    if not writer.is_closing():
        writer.write(msgspec.json.encode(line) + b"\n")
