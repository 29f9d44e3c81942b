from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from noria.core.errors import BusyError, ConfigError
from noria.gateway import GatewayError, ProxyOptions, RestartPolicy, Supervisor

Start = Callable[..., Supervisor]
Tiny = Callable[..., Any]


def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def connect(supervisor: Supervisor, timeout: float = 10) -> http.client.HTTPConnection:
    url = urlsplit(supervisor.url)
    assert url.hostname is not None
    return http.client.HTTPConnection(url.hostname, url.port, timeout=timeout)


def post(connection: http.client.HTTPConnection, path: str = "/predict", body: bytes = b"{}") -> tuple[int, bytes]:
    connection.request("POST", path, body)
    response = connection.getresponse()
    return response.status, response.read()


def once(supervisor: Supervisor, path: str = "/predict", body: bytes = b"{}") -> tuple[int, bytes]:
    connection = connect(supervisor)
    try:
        return post(connection, path, body)
    finally:
        connection.close()


def states(supervisor: Supervisor) -> list[str]:
    return [status.state for status in supervisor.status()]


def pids(supervisor: Supervisor) -> list[int]:
    return [status.pid for status in supervisor.status() if status.pid is not None]


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except FileNotFoundError:
        return False


def children(pid: int) -> dict[int, str]:
    """The command lines of a process's children."""
    found = [n for task in Path(f"/proc/{pid}/task").iterdir() for n in (task / "children").read_text().split()]
    return {int(n): Path(f"/proc/{n}/cmdline").read_text() for n in found}


def haproxy_pid() -> int:
    return next(pid for pid, command in children(os.getpid()).items() if "haproxy.cfg" in command)


@contextmanager
def load(supervisor: Supervisor, clients: int = 4) -> Iterator[tuple[list[Any], list[int]]]:
    """Clients that keep their connection and never cease to ask; gives the failures and the answers."""
    failures: list[Any] = []
    answers: list[int] = []
    over = threading.Event()

    def client() -> None:
        connection = connect(supervisor)
        while not over.is_set():
            try:
                status, body = post(connection, body=b"x" * 2000)
                if status != 200:
                    failures.append((status, body))
                answers.append(int(body))
            except (OSError, http.client.HTTPException, ValueError) as error:
                failures.append(error)
                connection.close()
        connection.close()

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield failures, answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.mark.parametrize("replicas", [1, 3])
def test_clients_notice_nothing_when_replicas_are_killed(supervise: Start, replicas: int) -> None:
    supervisor = supervise(replicas)
    with load(supervisor) as (failures, answers):
        for i in range(6):
            victim = supervisor.status()[i % replicas].pid
            if victim is not None:
                os.kill(victim, signal.SIGKILL)
            time.sleep(0.15)
        until(lambda: states(supervisor) == ["ready"] * replicas)
        seen = len(answers)
        until(lambda: set(answers[seen:]) == set(pids(supervisor)))
    assert failures == []
    assert sum(status.restarts for status in supervisor.status()) >= 4


def test_a_long_request_survives_too(supervise: Start) -> None:
    supervisor = supervise(2)
    results: list[tuple[int, bytes]] = []
    threads = [threading.Thread(target=lambda: results.append(once(supervisor, "/slow/predict"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    victim = pids(supervisor)[0]
    os.kill(victim, signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert [status for status, _ in results] == [200] * 4
    assert str(victim).encode() not in {body for _, body in results}


def test_what_may_not_run_twice_is_not_retried(supervise: Start) -> None:
    supervisor = supervise(2)
    status, body = once(supervisor, "/die")
    assert (status, json.loads(body)["status"]) == (502, 502)
    until(lambda: sum(status.restarts for status in supervisor.status()) == 1)


def test_no_replica_gives_a_problem_then_recovers(supervise: Start, tmp_path: Path, tiny_command: Tiny) -> None:
    gate = tmp_path / "closed"

    def command(index: int, port: int) -> list[str]:
        mode = "unready" if gate.exists() else ""
        return list(tiny_command(mode)(index, port))

    supervisor = supervise(2, command=command, options=ProxyOptions(queue_timeout=0.3), ready_timeout=0.5)
    gate.touch()
    for pid in pids(supervisor):
        os.kill(pid, signal.SIGKILL)
    until(lambda: "ready" not in states(supervisor))
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{supervisor.url}/predict", data=b"{}")
    with error.value as answer:
        assert (answer.code, answer.headers["content-type"]) == (503, "application/problem+json")
        assert answer.headers["retry-after"] == "1"
        assert json.load(answer)["type"] == "urn:noria:unavailable"
    gate.unlink()
    until(lambda: states(supervisor) == ["ready", "ready"])
    assert once(supervisor)[0] == 200


def test_haproxy_is_replaced_and_new_clients_wait_for_it(supervise: Start) -> None:
    supervisor = supervise(2)
    for _ in range(3):
        os.kill(haproxy_pid(), signal.SIGKILL)
        assert once(supervisor)[0] == 200  # its connection waits in the socket that the supervisor holds
    until(lambda: {int(once(supervisor)[1]) for _ in range(4)} == set(pids(supervisor)))


def test_a_hanging_replica_is_replaced(supervise: Start) -> None:
    supervisor = supervise(2, hang_timeout=0.3)
    victim = pids(supervisor)[0]
    os.kill(victim, signal.SIGSTOP)
    until(lambda: victim not in pids(supervisor) and states(supervisor) == ["ready", "ready"])
    assert not alive(victim)


def test_a_replica_that_is_lost_too_often_is_tried_now_and_then_and_the_others_go_on(supervise: Start) -> None:
    events: list[tuple[str, dict[str, Any]]] = []
    supervisor = supervise(
        2,
        restarts=RestartPolicy(max_failures=3, pause=0.01, longest_pause=1.0),
        on_event=lambda event, **fields: events.append((event, fields)),
    )
    for _ in range(3):
        until(lambda: states(supervisor)[0] == "ready")
        pid = supervisor.status()[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid: supervisor.status()[0].pid != pid)
    until(lambda: states(supervisor) == ["failed", "ready"])
    assert [f["replica"] for name, f in events if name == "replica_failed"] == ["replica-0"]
    assert once(supervisor) == (200, str(pids(supervisor)[0]).encode())
    until(lambda: states(supervisor) == ["ready", "ready"])


def test_the_loss_of_all_replicas_is_not_the_end(supervise: Start) -> None:
    """What they all need, such as the registry, may be gone for longer than they are tried in a row."""
    events: list[str] = []
    supervisor = supervise(
        2,
        restarts=RestartPolicy(max_failures=1, longest_pause=1.0),
        on_event=lambda event, **_: events.append(event),
    )
    for pid in pids(supervisor):
        os.kill(pid, signal.SIGKILL)
    until(lambda: states(supervisor) == ["failed", "failed"])
    assert once(supervisor)[0] == 200  # it has waited
    until(lambda: states(supervisor) == ["ready", "ready"])
    assert events.count("replica_failed") == 2


def test_a_used_port_is_told_before_anything_starts(tmp_path: Path, tiny_command: Tiny) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(GatewayError, match=f"port {port} on 127.0.0.1 is already in use") as error:
            Supervisor(tiny_command(), port=port, run_dir=tmp_path / "run").start()
        assert f"stop the program that listens on port {port}" in error.value.hint
        assert not (tmp_path / "run").exists()


def test_a_broken_replica_shows_its_log(tmp_path: Path, tiny_command: Tiny) -> None:
    with pytest.raises(GatewayError, match=r"ended with status 3.*\n.*the model file is missing"):
        Supervisor(tiny_command("broken"), port=0, run_dir=tmp_path, on_event=lambda *_, **__: None).start()
    with pytest.raises(GatewayError, match="can't run 'no-such-program'"):
        Supervisor(lambda *_: ["no-such-program"], port=0, run_dir=tmp_path, on_event=lambda *_, **__: None).start()


@pytest.mark.parametrize("mode", ["unready", "hang"])
def test_a_replica_that_never_becomes_ready(tmp_path: Path, tiny_command: Tiny, mode: str) -> None:
    supervisor = Supervisor(
        tiny_command(mode), port=0, run_dir=tmp_path, ready_timeout=0.3, on_event=lambda *_, **__: None
    )
    with pytest.raises(GatewayError, match=r"was not ready within 0\.3 seconds"):
        supervisor.start()
    assert pids(supervisor) == []


def test_a_command_that_raises_stops_everything(tmp_path: Path) -> None:
    def command(index: int, port: int) -> list[str]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Supervisor(command, port=0, run_dir=tmp_path).start()


def test_one_run_directory_has_one_supervisor(supervise: Start, tmp_path: Path, tiny_command: Tiny) -> None:
    supervise(1)
    with pytest.raises(BusyError, match=f"process {os.getpid()} already runs a gateway"):
        Supervisor(tiny_command(), port=0, run_dir=tmp_path / "run").start()


def test_stop_drains_and_leaves_nothing(supervise: Start, tmp_path: Path) -> None:
    supervisor = supervise(2)
    processes = pids(supervisor)
    sockets = Path((tmp_path / "run" / "lock").read_text().splitlines()[1])
    idle = connect(supervisor)
    post(idle)
    answers: list[tuple[int, bytes]] = []
    slow = threading.Thread(target=lambda: answers.append(once(supervisor, "/slow/predict")))
    slow.start()
    time.sleep(0.2)
    start = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - start < 3  # it waits for the slow request, not for the idle connection
    slow.join()
    idle.close()
    assert answers[0][0] == 200
    assert not sockets.exists()
    assert not any(alive(pid) for pid in processes)
    assert states(supervisor) == ["stopped", "stopped"]
    with pytest.raises(ConnectionRefusedError):
        once(supervisor)
    supervisor.stop()


PROGRAM = """
import sys
from noria.gateway import Supervisor
command = lambda index, port: [sys.executable, "-I", "-S", sys.argv[1], str(port), *sys.argv[4:]]
with Supervisor(command, port=int(sys.argv[3]), run_dir=sys.argv[2]) as supervisor:
    sys.stdout.write(supervisor.url + "\\n")
    sys.stdout.flush()
    supervisor.wait()
"""


@contextmanager
def program(run_dir: Path, port: int = 0, *mode: str) -> Iterator[subprocess.Popen[str]]:
    script = str(Path(__file__).with_name("tiny_replica.py"))
    command = [sys.executable, "-c", PROGRAM, script, str(run_dir), str(port), *mode]
    # Tests that were started in the background inherit that Ctrl-C is ignored, and a program would inherit it from them.
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    if ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    finally:
        if ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    with started as process:
        try:
            yield process
        finally:
            process.terminate()


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_killed_supervisor_leaves_no_orphan_and_can_start_again(tmp_path: Path) -> None:
    with program(tmp_path) as process:
        url, processes = first_line(process), children(process.pid)
        assert len(processes) == 3
        leftovers = Path((tmp_path / "lock").read_text().splitlines()[1])
        process.kill()
        process.wait()
        until(lambda: not any(alive(pid) for pid in processes))
        assert leftovers.exists()
    with program(tmp_path, urlsplit(url).port or 0) as process:
        assert first_line(process) == url
        assert not leftovers.exists()
        with urllib.request.urlopen(f"{url}/predict", data=b"{}") as answer:
            assert answer.status == 200
    assert (tmp_path / "logs" / "replica-0.log.1").exists()


def ask(url: str, answers: list[object]) -> threading.Thread:
    """Send a request from a thread, and let it reach its replica."""

    def request() -> None:
        try:
            with urllib.request.urlopen(url, data=b"{}") as answer:
                answers.append(answer.status)
        except OSError as error:
            answers.append(error)
            if isinstance(error, urllib.error.HTTPError):
                error.close()

    thread = threading.Thread(target=request)
    thread.start()
    time.sleep(0.2)
    return thread


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_drain_and_end(tmp_path: Path, number: signal.Signals) -> None:
    with program(tmp_path) as process:
        url, processes = first_line(process), children(process.pid)
        answers: list[object] = []
        request = ask(f"{url}/slow/predict", answers)
        process.send_signal(number)
        assert process.wait(30) == 0
        request.join()
        assert answers == [200]
        assert not any(alive(pid) for pid in processes)


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with program(tmp_path) as process:
        url, processes = first_line(process), children(process.pid)
        answers: list[object] = []
        request = ask(f"{url}/forever", answers)
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.terminate()
        assert process.wait(30) == 0
        request.join()
        assert answers != [200]
        assert not any(alive(pid) for pid in processes)


def test_ctrl_c_during_the_start(tmp_path: Path) -> None:
    with program(tmp_path, 0, "unready") as process:
        until(lambda: len(children(process.pid)) == 3)
        processes = children(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) != 0
        assert not any(alive(pid) for pid in processes)


def test_wrong_settings_are_refused(tmp_path: Path, tiny_command: Tiny) -> None:
    with pytest.raises(ConfigError, match="0 replicas"):
        Supervisor(tiny_command(), 0, run_dir=tmp_path)
    for settings in ({"port": 70_000}, {"host": "no.such.host.invalid"}, {"host": "192.0.2.1"}):
        with pytest.raises(ConfigError):
            Supervisor(tiny_command(), run_dir=tmp_path, **({"port": 0} | settings)).start()
    with pytest.raises(ConfigError, match="can't write"):
        Supervisor(tiny_command(), port=0, run_dir="/proc/nowhere").start()
    with pytest.raises(ConfigError, match="start"):
        Supervisor(tiny_command(), run_dir=tmp_path).wait()
