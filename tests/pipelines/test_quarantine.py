"""Dead letters of streams are sent again: each once, and none is lost."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import noria as nr
from noria.core import Settings
from noria.pipelines.quarantine import replay_stream
from noria.pipelines.stream import Stream
from noria.pipelines.stream_processor import StreamProcessor
from noria.storage import Workspace
from noria.storage.delta_tables import DeltaLakeTable
from noria.storage.segment_log import SegmentLog


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace.open(Settings(tmp_path)) as opened:
        yield opened


def clicks(**options: Any) -> Stream:
    schema = {"user": "int64", "amount": "float64", "at": nr.Timestamp("s")}
    return Stream("clicks", **{"schema": schema, "key": "user", "checks": [nr.between("amount", 0, 10)], **options})


def event(user: int, amount: float) -> bytes:
    return json.dumps({"user": user, "amount": amount, "at": 1}).encode()


def process(workspace: Workspace, *events: bytes) -> None:
    workspace.log.create("clicks", 2)
    if events:
        workspace.log.append("clicks", list(events))
    with StreamProcessor(clicks(), workspace) as processor:
        processor.run_to_end()


def users(workspace: Workspace, table: str = "clicks") -> list[int]:
    if table == "clicks":
        return sorted(workspace.table("clicks").read()["user"].to_list())
    return sorted(json.loads(row)["user"] for row in workspace.table("clicks__quarantine").read()["row"])


class Killed(BaseException):
    pass


def kill_at_the_commit(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    real = DeltaLakeTable.commit

    def commit(self: Any, *args: Any, **options: Any) -> int:
        if options["mode"] != "overwrite":
            return real(self, *args, **options)
        if not before:
            real(self, *args, **options)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(DeltaLakeTable, "commit", commit)
        with pytest.raises(Killed):
            replay_stream(clicks(), workspace)


@pytest.mark.parametrize("before", [True, False])
def test_a_replay_that_is_killed_sends_the_same_again_and_then_what_has_come(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, before: bool
) -> None:
    process(workspace, event(1, 1), event(2, 99), event(4, 99))
    kill_at_the_commit(workspace, monkeypatch, before)
    # The first sending comes back, for it is still bad, and there is more.
    process(workspace, event(3, 77))
    replay_stream(clicks(), workspace)
    assert users(workspace, "quarantine") == [2, 3, 4]
    replay_stream(clicks(checks=[], key=None), workspace)
    assert users(workspace) == [1, 2, 3, 4]
    assert users(workspace, "quarantine") == []
    assert replay_stream(clicks(), workspace).rows_in == 0


def test_a_replay_that_was_killed_goes_to_the_same_partitions_when_the_key_has_changed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(workspace, *(event(user, 99) for user in range(20)))
    kill_at_the_commit(workspace, monkeypatch, before=True)
    replay_stream(clicks(checks=[], key="amount"), workspace)
    assert users(workspace) == list(range(20))


def test_a_quarantine_that_was_made_anew_is_sent_though_its_numbers_begin_again(workspace: Workspace) -> None:
    process(workspace, event(1, 99))
    replay_stream(clicks(checks=[]), workspace)
    assert users(workspace) == [1]
    shutil.rmtree(next(workspace.settings.root.rglob("clicks__quarantine")))
    process(workspace, event(2, 99))
    replay_stream(clicks(checks=[]), workspace)
    assert users(workspace) == [1, 2]


def test_what_comes_to_the_quarantine_after_it_was_read_stays(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    process(workspace, event(1, 99))
    real = SegmentLog.append

    def append(self: Any, *args: Any, **options: Any) -> int:
        monkeypatch.undo()
        written = real(self, *args, **options)
        with Workspace.open(workspace.settings) as other:
            process(other, event(2, 99))
        return written

    monkeypatch.setattr(SegmentLog, "append", append)
    replay_stream(clicks(), workspace)
    assert users(workspace, "quarantine") == [1, 2]
    replay_stream(clicks(checks=[]), workspace)
    assert users(workspace) == [1, 2]


def test_what_comes_to_the_quarantine_while_it_is_sent_stays(workspace: Workspace) -> None:
    process(workspace, event(-1, 1))
    stop = threading.Event()

    def work() -> None:
        with Workspace.open(workspace.settings) as own, StreamProcessor(clicks(), own, flush_seconds=0.0) as processor:
            processor.run(stop)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for turn in range(3):
            workspace.log.append("clicks", [event(turn * 10 + n, 99) for n in range(10)])
            replay_stream(clicks(), workspace)
    finally:
        stop.set()
        worker.join()
    process(workspace)
    assert users(workspace, "quarantine") == list(range(30))
