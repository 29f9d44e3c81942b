"""A new supervisor takes the place of a running one while clients ask: no request may fail."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from traffic import request, traffic, until

from noria.core.errors import BusyError, ConfigError, NotFoundError
from noria.gateway import GatewayError, Supervisor, ask

Start = Callable[..., Supervisor]
Tiny = Callable[..., Any]


def pids(supervisor: Supervisor) -> set[bytes]:
    return {str(status.pid).encode() for status in supervisor.status() if status.pid}


@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_new_supervisor_takes_over(supervise: Start, tmp_path: Path, tiny_command: Tiny, keep_alive: bool) -> None:
    old = supervise(2)
    with traffic(old.url, keep_alive=keep_alive) as answers, traffic(old.url, 1, path="/slow/work") as slow:
        for _ in range(2):
            new = supervise(2, take_over=True)
            assert new.url == old.url
            old_pids = pids(old)
            until(lambda old=old: {status.state for status in old.status()} == {"stopped"})
            mark = len(answers.bodies)
            until(lambda new=new, mark=mark: answers.since(mark) == pids(new))
            assert not pids(new) & old_pids
            assert {str(s["pid"]).encode() for s in ask(tmp_path / "run", "servers")} == pids(new)
            old = new
    assert answers.failures == slow.failures == []
    with pytest.raises(BusyError):
        Supervisor(tiny_command(), 1, port=0, run_dir=tmp_path / "run").start()
    new.stop()
    assert supervise(1).status()[0].state == "ready"  # the directory is free again


def test_it_is_told_why_the_old_one_ends(supervise: Start) -> None:
    told: list[tuple[str, object]] = []
    supervise(1, on_event=lambda event, **fields: told.append((event, fields.get("cause"))))
    supervise(1, take_over=True)
    until(lambda: ("gateway_stops", "another has taken over") in told)


def test_what_can_not_start_changes_nothing(supervise: Start, tmp_path: Path, tiny_command: Tiny) -> None:
    old = supervise(2)
    before = pids(old)
    with traffic(old.url) as answers:
        with pytest.raises(GatewayError, match="the model file is missing"):
            Supervisor(
                tiny_command("broken"), port=0, run_dir=tmp_path / "run", take_over=True, on_event=lambda *_, **__: None
            ).start()
        with pytest.raises(ConfigError, match="listens on port"):
            Supervisor(tiny_command(), port=1234, run_dir=tmp_path / "run", take_over=True).start()
        os.kill(old.status()[0].pid or 0, signal.SIGKILL)  # it is still looked after
        until(lambda: pids(old) != before and {status.state for status in old.status()} == {"ready"})
    assert answers.failures == []
    assert len(ask(tmp_path / "run", "servers")) == 2
    assert request(old.url, "/predict")[0] == 200


def test_there_has_to_be_one(tmp_path: Path, tiny_command: Tiny) -> None:
    with pytest.raises(NotFoundError, match="no gateway runs"):
        Supervisor(tiny_command(), port=0, run_dir=tmp_path / "run", take_over=True).start()
