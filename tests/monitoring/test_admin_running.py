"""Starting and ending a console: beside servers, alone, and when things go wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from noria.cli.admin import console
from noria.core import MissingExtraError, Settings
from noria.gateway import GatewayError
from noria.gateway.operations import ServerStatus
from noria.gateway.statistics import ServerStatistics
from noria.monitoring.console.exposition import merged
from noria.monitoring.console.pulse import Pulse
from noria.monitoring.console.running import Running, running


def on(settings: Settings, **serve: object) -> Settings:
    return replace(settings, serve=replace(settings.serve, **serve))  # type: ignore[arg-type]


def test_it_ends_with_its_block_and_leaves_no_thread(settings: Settings, tmp_path: Path) -> None:
    before, told = set(threading.enumerate()), list[str]()
    with running(settings, tmp_path, told.append) as made:
        assert httpx.get(f"{made.url}/health").status_code == 200
    assert not made.alive
    assert {one.name for one in set(threading.enumerate()) - before} <= {"AnyIO worker thread"}
    with pytest.raises(httpx.ConnectError):
        httpx.get(made.url)
    assert told == []


def test_a_taken_port_is_an_error_alone_and_a_line_beside_servers(settings: Settings, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken, told = on(settings, admin_port=other.getsockname()[1]), list[str]()
        with pytest.raises(GatewayError, match="already in use"), running(taken, tmp_path, told.append):
            pass
        with console(taken, tmp_path, told.append) as url:
            assert url == ""
    (line,) = told
    assert line.startswith("no console: port ")


def test_a_port_that_another_is_about_to_leave_is_waited_for(settings: Settings, tmp_path: Path) -> None:
    before, told, there = set(threading.enumerate()), list[str](), threading.Event()

    def tell(line: str) -> None:
        told.append(line)
        if line.startswith("console: "):
            there.set()

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        stack = ExitStack()
        assert stack.enter_context(console(on(settings, admin_port=port), tmp_path, tell, inherits=True)) == ""
    with stack:
        assert there.wait(30)
        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    assert told == [f"the console comes when port {port} is free", f"console: http://127.0.0.1:{port}"]
    assert {one.name for one in set(threading.enumerate()) - before} <= {"AnyIO worker thread"}


def test_its_port_0_is_none_beside_servers(settings: Settings, tmp_path: Path) -> None:
    told: list[str] = []
    with console(settings, tmp_path, told.append) as url:
        assert (url, told) == ("", [])


@pytest.mark.parametrize("missing", ["starlette", "uvicorn"])
def test_a_missing_library_is_told_with_its_remedy(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in [name for name in sys.modules if name.startswith((missing, "noria.monitoring.console.app"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(MissingExtraError), running(settings, tmp_path, print):
        pass
    told: list[str] = []
    with console(on(settings, admin_port=1), tmp_path, told.append) as url:
        assert url == ""
    assert told == [
        "no console: the console needs Starlette or uvicorn, which is not installed (pip install 'noria[console]')"
    ]


def test_a_registry_that_cant_be_opened_is_a_line_beside_servers(settings: Settings, tmp_path: Path) -> None:
    (settings.root / ".noria" / "records.db").write_bytes(b"no database at all" * 1_000)
    told: list[str] = []
    with console(on(settings, admin_port=1), tmp_path, told.append) as url:
        assert url == ""
    assert "can't be used" in told[0]


def test_its_death_is_told(start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    def die(self: uvicorn.Server, sockets: object = None) -> None:
        raise MemoryError("no more")

    monkeypatch.setattr(uvicorn.Server, "run", die)
    told: list[str] = []
    made = start(told.append)
    made.wait(5)
    assert told == ["the console has ended, MemoryError: no more; everything else goes on"]


def test_a_bug_is_answered_and_logged_without_its_details(
    start: Callable[..., Running], settings: Settings, monkeypatch: pytest.MonkeyPatch, wait_for: Callable[..., None]
) -> None:
    def broken(self: object) -> None:
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr("noria.registry.ModelRegistry.models", broken)
    made = start()
    response = httpx.get(f"{made.url}/api/models")
    assert (response.status_code, "secret" in response.text) == (500, False)
    assert made.alive
    log = settings.state_dir / "logs" / f"console-{made.url.rpartition(':')[2]}.jsonl"
    wait_for(lambda: log.exists() and "a secret" in log.read_text())


def test_noria_admin_runs_alone_until_it_is_told_to_stop(settings: Settings) -> None:
    command = [sys.executable, "-m", "noria", "admin", "--project", str(settings.root), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as child:
        assert child.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", child.stdout.readline())
        assert found
        assert httpx.get(f"{found[0]}/api/models").json()[0]["name"] == "late"
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=20)
    assert (child.returncode, errors) == (0, "stopped\n")


def status(name: str, requests: int, failures: int = 0) -> ServerStatus:
    counted = ServerStatistics(name, "x:1", "UP", 100, 0, 0, requests, 0, failures, 0, "")
    return ServerStatus(name, "x:1", None, "ready", 0, False, False, counted)


def test_rates_are_of_what_was_counted_also_across_a_new_beginning(tmp_path: Path) -> None:
    at = [0.0]
    pulse = Pulse(tmp_path, lambda: at[0])
    assert pulse.rates() is None
    for seconds, requests, failures in ((0.0, 1_000, 5), (2.0, 1_100, 5), (4.0, 60, 4), (6.0, 100, 4)):
        at[0] = seconds
        pulse.add([status("a", requests, failures), status("b", 7)])
    found = pulse.rates()
    assert found is not None
    assert (found.requests, found.failures, found.seconds) == (200 / 6, 4 / 6, 6.0)
    at[0] = 60.0
    assert pulse.rates() is None


def test_metrics_are_merged_by_family() -> None:
    text = '# HELP a A.\n# TYPE a counter\na_total{x="{ }"} 1\na_total 2 123\n\n# TYPE b gauge\nb NaN\n'
    assert merged({"r0": text, "r1": text}).splitlines() == [
        "# HELP a A.",
        "# TYPE a counter",
        'a_total{replica="r0",x="{ }"} 1',
        'a_total{replica="r0"} 2 123',
        'a_total{replica="r1",x="{ }"} 1',
        'a_total{replica="r1"} 2 123',
        "# TYPE b gauge",
        'b{replica="r0"} NaN',
        'b{replica="r1"} NaN',
    ]
    assert merged({}) == ""
