"""`noria servers`, `scale` and `restart` speak to the gateway of the project."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from noria.cli import main
from noria.gateway import Supervisor
from noria.gateway.operations import USUAL_REPLICAS

SCRIPT = str(Path(__file__).parents[1] / "gateway" / "tiny_replica.py")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Supervisor]:
    with Supervisor(
        lambda _, port: [sys.executable, "-I", "-S", SCRIPT, str(port)],
        1,
        port=0,
        run_dir=tmp_path / ".noria" / "serve",
    ) as supervisor:
        yield supervisor


def test_scale_weigh_and_restart(running: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = ["--project", str(tmp_path)]
    assert main(["scale", "2", *project]) == 0
    told = capsys.readouterr()
    assert (told.out, told.err) == ("2 servers: 1 started\n", "")
    assert main(["scale", "1-2", *project]) == 0
    before = {status.pid for status in running.status()}
    assert main(["restart", *project]) == 0
    assert not before & {status.pid for status in running.status()}
    name = running.status()[0].name
    assert main(["servers", "weight", name, "7", *project]) == 0
    assert main(["servers", "add", "127.0.0.1:9", "--weight", "50", *project]) == 0
    assert main(["servers", "drain", name, *project]) == 0
    capsys.readouterr()
    assert main(["servers", *project]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:5] == ["SERVER", "ADDRESS", "PID", "STATE", "WEIGHT"]
    assert [line.split()[3:5] for line in lines if name in line] == [["drained", "7"]]
    assert main(["servers", "resume", name, *project]) == 0
    assert main(["servers", "remove", "127.0.0.1:9", *project]) == 0
    capsys.readouterr()
    assert main(["servers", "list", *project]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(running.status()) + 1
    assert main(["servers", "--json", *project]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(running.status())


def test_many_or_none_have_to_be_forced(
    running: Supervisor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = ["--project", str(tmp_path)]
    assert main(["servers", "add", "127.0.0.1:9", *project]) == 0  # nobody listens there
    for count in ("200", "0", "1-200"):
        assert main(["scale", count, *project]) == 1
        assert "--force allows 0 to 256" in capsys.readouterr().err
    assert len(running.status()) == 1
    assert main(["scale", "0", "--force", *project]) == 0
    assert capsys.readouterr().out == "0 servers: 1 ended\n"
    assert running.status() == []
    many = str(USUAL_REPLICAS + 1)
    assert main(["scale", many, "--force", *project]) == 0
    assert capsys.readouterr().out == f"{many} servers: {many} started\n"
    assert main(["scale", "1", *project]) == 0


def test_mistakes_are_one_clear_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["scale", "3"], ["servers"], ["restart"]):
        assert main([*words, "--project", str(tmp_path)]) == 1
        assert f"noria serve isn't running in {tmp_path}" in capsys.readouterr().err
    assert main(["scale", "many", "--project", str(tmp_path)]) == 1
    assert "2-8" in capsys.readouterr().err
