from __future__ import annotations

import json
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noria.core.errors import ConfigError, NoriaError, NotFoundError
from noria.gateway import GatewayError, Supervisor, ask
from noria.gateway.control import SOCKET_NAME, conversation
from noria.gateway.run_directory import sockets_of

Start = Callable[..., Supervisor]


def path_of(run_dir: Path) -> Path:
    sockets = sockets_of(run_dir)
    assert sockets is not None
    return sockets / SOCKET_NAME


def raw(run_dir: Path, data: bytes, *, end: bool = False) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path_of(run_dir)))
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as lines:
            answer: dict[str, Any] = json.loads(lines.readlines()[-1])
        return answer


def test_another_process_can_ask(supervise: Start, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    supervisor = supervise(1)
    assert stat.S_IMODE(path_of(run_dir).stat().st_mode) == 0o600
    [server] = ask(run_dir, "servers")
    assert (server["name"], server["pid"], server["replica"]) == ("replica-0", supervisor.status()[0].pid, "ready")
    assert server["proxy"]["weight"] == 100
    lines = list(conversation(run_dir, "scale", minimum=2))
    assert [line.get("event") for line in lines] == ["replica_ready", None]
    assert lines[-1] == {"result": None}
    events = [line.get("event") for line in conversation(run_dir, "restart")]
    assert events.count("replica_took_over") == 2
    ask(run_dir, "weigh", name="replica-0", weight=7)
    assert next(s for s in ask(run_dir, "servers") if s["name"] == "replica-0")["proxy"]["weight"] == 7
    ask(run_dir, "reload")
    assert len(ask(run_dir, "servers")) == 2


def test_requests_at_the_same_time_wait_for_each_other(supervise: Start, tmp_path: Path) -> None:
    supervise(1)
    asked = [
        threading.Thread(target=ask, args=(tmp_path / "run", "scale"), kwargs={"minimum": n}) for n in (3, 2, 4, 2)
    ]
    for thread in asked:
        thread.start()
    for thread in asked:
        thread.join()
    assert {s["replica"] for s in ask(tmp_path / "run", "servers")} == {"ready"}


def test_mistakes_are_told(supervise: Start, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    supervise(1)
    for request in (b"nonsense\n", b"[1]\n", b'{"x": 1}\n', b'{"do": ["scale"]}\n', b'{"do": "explode"}\n', b"\xff\n"):
        assert raw(run_dir, request)["error"]["status"] == 400
    assert "detail" in raw(run_dir, b"", end=True)["error"]
    assert "detail" in raw(run_dir, b"x" * 100_000 + b"\n")["error"]
    assert "scale" in raw(run_dir, b'{"do": "scle"}\n')["error"]["hint"]
    for fields in ({"minimum": 0}, {"minimum": 257}, {"minimum": "2"}, {"minimum": 3, "maximum": 2}, {}, {"x": 1}):
        with pytest.raises(NoriaError):
            ask(run_dir, "scale", **fields)
    for do, fields in (("weigh", {"name": "x", "weight": 1}), ("add", {"address": 5}), ("remove", {"name": []})):
        with pytest.raises(NoriaError):
            ask(run_dir, do, **fields)
    assert len(ask(run_dir, "servers")) == 1


def test_an_asker_that_goes_away_stops_nothing(supervise: Start, tmp_path: Path) -> None:
    supervisor = supervise(1)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path_of(tmp_path / "run")))
        connection.sendall(b'{"do": "scale", "minimum": 2}\n')
    ask(tmp_path / "run", "weigh", name="replica-0", weight=50)
    supervisor.scale(3)
    assert len(supervisor.status()) == 3


def test_where_nothing_runs(supervise: Start, tmp_path: Path, tiny_command: Callable[[str], Any]) -> None:
    with pytest.raises(NotFoundError, match="no gateway runs") as error:
        ask(tmp_path / "run", "servers")
    assert "noria serve" in error.value.hint
    stopped = Supervisor(tiny_command(""), 1, port=0, run_dir=tmp_path / "other")
    with stopped:
        assert ask(tmp_path / "other", "servers")
    with pytest.raises(NotFoundError):
        ask(tmp_path / "other", "servers")
    with pytest.raises(ConfigError, match="isn't running"):
        stopped.scale(2)
    (tmp_path / "other" / "lock").write_text(f"{os.getpid()}\n/etc\n")  # only a directory of ours is looked into
    with pytest.raises(NotFoundError):
        ask(tmp_path / "other", "servers")


def test_the_end_of_the_gateway_ends_what_it_was_doing(supervise: Start, tiny_command: Callable[[str], Any]) -> None:
    slow = threading.Event()

    def command(index: int, port: int) -> list[str]:
        return list(tiny_command("unready" if slow.is_set() else "")(index, port))

    supervisor, errors = supervise(1, command=command), list[Exception]()

    def scale() -> None:
        try:
            supervisor.scale(2)
        except GatewayError as error:
            errors.append(error)

    slow.set()
    thread = threading.Thread(target=scale)
    thread.start()
    while len(supervisor.status()) < 2:
        pass
    supervisor.stop()
    thread.join()
    assert "the gateway stops" in str(errors[0])
