"""The Open Inference Protocol over gRPC through the gateway, with its own client."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_haproxy import CERTIFY
from traffic import until
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from noria.gateway import GatewayError, ProxyOptions, Supervisor
from noria.gateway.ports import free_port

Start = Callable[..., Supervisor]
SCRIPT = str(Path(__file__).with_name("grpc_replica.py"))
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def command(index: int, port: int, grpc_port: int) -> list[str]:
    return [sys.executable, SCRIPT, str(port), str(grpc_port)]


@pytest.fixture
def start(supervise: Start) -> Start:
    return lambda replicas, **settings: supervise(replicas, **{"command": command, "grpc_port": 0} | settings)


def asked(do: str, rows: int = 1) -> list[InferInput]:
    tensor = InferInput("do", [rows], "BYTES")
    return [tensor.set_data_from_numpy(np.array([do] * rows, dtype=object))]


def infer(client: InferenceServerClient, do: str = "answer", rows: int = 1, **words: Any) -> int:
    """The pid of the process that has answered."""
    result = client.infer("pid", asked(do, rows), client_timeout=30, **words).as_numpy("predictions")
    assert result.shape == (rows,)
    return int(result[0])


def client_of(supervisor: Supervisor, **words: Any) -> InferenceServerClient:
    return InferenceServerClient(supervisor.grpc_address, **words)


def pids(supervisor: Supervisor) -> set[int]:
    return {status.pid for status in supervisor.status() if status.pid}


@contextmanager
def calls(supervisor: Supervisor, clients: int = 3) -> Iterator[tuple[list[Any], list[int]]]:
    """Clients that never cease to ask; gives the failures and the answers."""
    failures: list[Any] = []
    answers: list[int] = []
    over = threading.Event()

    def ask() -> None:
        # A channel of its own, where the client would share one between all.
        with client_of(supervisor, channel_args=[("grpc.use_local_subchannel_pool", 1)]) as client:
            while not over.is_set():
                try:
                    answers.append(infer(client))
                except InferenceServerException as error:
                    failures.append((error.status(), error.message()))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield failures, answers
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_calls_streams_and_errors_pass_through(start: Start) -> None:
    supervisor = start(2)
    with client_of(supervisor) as client:
        assert client.is_server_ready()
        assert client.get_model_metadata("pid").versions == ["1"]
        assert {infer(client) for _ in range(6)} == pids(supervisor)  # over one connection
        assert infer(client, "x" * 1000, rows=300) in pids(supervisor)  # more than a buffer
        for model, do, code, message in (
            ("nobody", "", "NOT_FOUND", "no model 'nobody'"),
            ("pid", "refuse", "FAILED_PRECONDITION", "not this one"),
        ):
            with pytest.raises(InferenceServerException, match=message) as caught:
                client.infer(model, asked(do))
            assert code in caught.value.status()
        with pytest.raises(InferenceServerException, match="Deadline"):
            client.infer("pid", asked("slow"), client_timeout=0.1)
        with pytest.raises(InferenceServerException) as caught:
            client.infer("pid", asked("x" * 1000, rows=1100))
        assert "RESOURCE_EXHAUSTED" in caught.value.status()
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put(error or int(result.as_numpy("predictions")[0])))
        found = []
        for _ in range(4):  # each is answered before the next is asked
            client.async_stream_infer("pid", asked("answer"))
            found.append(answers.get(timeout=20))
        client.stop_stream()
    assert len(set(found)) == 1
    assert found[0] in pids(supervisor)
    counted = [server.proxy for server in supervisor.servers() if server.proxy]
    assert {proxy.name for proxy in counted} == {"replica-0", "replica-1"}
    assert sum(proxy.requests for proxy in counted) >= 12


def test_a_call_whose_server_is_killed_is_repeated_and_a_stream_ends(start: Start, tmp_path: Path) -> None:
    supervisor = start(1, env={"DIE_ONCE": str(tmp_path / "died")})
    [first] = pids(supervisor)
    with client_of(supervisor) as client:
        assert infer(client, "die") != first  # it waits for the next process
        answers: queue.Queue[Any] = queue.Queue()
        client.start_stream(lambda result, error: answers.put(error))
        client.async_stream_infer("pid", asked("answer"))
        assert answers.get(timeout=20) is None
        os.kill(*pids(supervisor), signal.SIGKILL)
        status = answers.get(timeout=20).status()
        assert status in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED")
        client.stop_stream()
        assert infer(client) in pids(supervisor)


@pytest.mark.parametrize("replicas", [1, 2])
def test_killed_servers_cost_no_call(start: Start, replicas: int) -> None:
    supervisor = start(replicas)
    with calls(supervisor) as (failures, answers):
        for i in range(3):
            victim = supervisor.status()[i % replicas].pid
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
            until(lambda victim=victim: victim not in pids(supervisor))
            until(lambda: [status.state for status in supervisor.status()] == ["ready"] * replicas, 30)
            mark = len(answers) + 3
            until(lambda mark=mark: set(answers[mark:]) == pids(supervisor), 30)
    assert failures == []


def test_restarts_scaling_and_reloads_cost_no_call(start: Start) -> None:
    supervisor = start(1)
    old = pids(supervisor)
    with calls(supervisor) as (failures, answers):
        supervisor.restart()
        supervisor.scale(2)
        supervisor.reload(ProxyOptions(policy="least_connections"))
        supervisor.scale(1)
        mark = len(answers)
        until(lambda: len(answers) > mark + 20)
        assert set(answers[mark + 10 :]) == pids(supervisor)
    assert failures == []
    assert not pids(supervisor) & old


def test_weights_and_drains_hold_for_calls(start: Start) -> None:
    supervisor = start(2, options=ProxyOptions(queue_timeout=0.3))
    first, second = (status.pid for status in supervisor.status())
    with client_of(supervisor) as client:
        supervisor.set_weight("replica-0", 25)
        found = [infer(client) for _ in range(50)]
        assert (found.count(first), found.count(second)) == (10, 40)
        assert supervisor.drain_server("replica-1")
        assert {infer(client) for _ in range(4)} == {first}
        supervisor.drain_server("replica-0")
        with pytest.raises(InferenceServerException, match="no server is ready") as caught:
            infer(client)
        assert "UNAVAILABLE" in caught.value.status()
        supervisor.resume_server("replica-1")
        assert infer(client) == second


def test_tls(start: Start, tmp_path: Path) -> None:
    key, certificate, both = (tmp_path / name for name in ("key.pem", "cert.pem", "both.pem"))
    made = subprocess.run([*CERTIFY.split(), "-keyout", key, "-out", certificate], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("openssl can't make a certificate here")
    both.write_text(certificate.read_text() + key.read_text())
    supervisor = start(1, options=ProxyOptions(certificate=both))
    with client_of(supervisor, ssl=True, root_certificates=str(certificate)) as client:
        assert infer(client) in pids(supervisor)
    with client_of(supervisor) as client, pytest.raises(InferenceServerException):
        client.is_server_live(client_timeout=5)


@pytest.mark.parametrize("before", [None, 0])
def test_another_supervisor_takes_over(start: Start, tmp_path: Path, before: int | None) -> None:
    def either(index: int, port: int, grpc_port: int | None = None) -> list[str]:
        return command(index, port, grpc_port or free_port())

    old = start(1, grpc_port=before, command=either)
    wanted = free_port() if before is None else 0
    new = Supervisor(
        command, 1, port=0, grpc_port=wanted, run_dir=tmp_path / "run", take_over=True, on_event=lambda *_, **__: None
    )
    if before is None:
        assert old.grpc_address is None
        with new:
            assert new.grpc_address == f"127.0.0.1:{wanted}"
            with client_of(new) as client:
                assert infer(client) in pids(new)
        return
    with calls(old) as (failures, answers), new:
        assert new.grpc_address == old.grpc_address
        until(lambda: answers[-1:] != [] and answers[-1] in pids(new), 30)
        time.sleep(0.2)
        assert failures == []


def test_a_port_that_is_taken_is_told(start: Start) -> None:
    supervisor = start(1)
    port = int(str(supervisor.grpc_address).rpartition(":")[2])
    with pytest.raises(GatewayError, match=f"port {port} .* already in use"):
        start(1, grpc_port=port, run_dir="other")
