"""`noria events`, `noria stream`, `noria quarantine` in a project."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

SYSTEM = """
import noria as nr
past = nr.Source("past", "past.csv", schema={"user": "int64", "x": "float64?", "at": nr.Timestamp("s")})
clicks = nr.Stream("clicks", schema={"user": "int64", "x": "float64?", "at": nr.Timestamp("s")}, key="user",
                   checks=[nr.between("x", 0, 10)], online=[nr.Totals("user", sums=["x"])])
system = nr.System("web", [past, clicks])
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "system.py").write_text(SYSTEM)
    (tmp_path / "past.csv").write_text("user,x,at\n1,1,1\n2,99,2\nbad,1,3\n")
    return tmp_path


def noria(project: Path, *words: str, stdin: str = "", rc: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "noria", *words], cwd=project, input=stdin, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == rc, done.stderr
    return done


def events(*rows: tuple[object, object, object]) -> str:
    return "".join(json.dumps({"user": u, "x": x, "at": at}) + "\n" for u, x, at in rows)


def test_events_are_sent_seen_processed_and_replayed(project: Path) -> None:
    sent = noria(project, "events", "send", "clicks", stdin=events((1, 1, 1), (2, 50, 2), (1, 2, 3)))
    assert "3 events sent" in sent.stderr
    assert noria(project, "events", "tail", "clicks", "-n", "2").stdout.splitlines() == [
        '0:1  {"user": 2, "x": 50, "at": 2}',
        '0:2  {"user": 1, "x": 2, "at": 3}',
    ]
    once = json.loads(noria(project, "stream", "--once", "--json").stdout)["clicks"]
    assert (once["in"], once["out"], once["quarantined"]) == (3, 2, 1)
    assert json.loads(noria(project, "quarantine", "list", "--json").stdout)[1]["by_rule"] == {"x between 0 and 10": 1}
    shown = noria(project, "quarantine", "show", "clicks").stdout
    assert "clicks/0, row 1: x between 0 and 10" in shown
    assert noria(project, "quarantine", "replay", "clicks").stdout.startswith("1 rows were in quarantine: 0 are in")
    (project / "system.py").write_text(SYSTEM.replace("0, 10", "0, 100"))
    replayed = json.loads(noria(project, "quarantine", "replay", "clicks", "--json").stdout)
    assert (replayed["in"], replayed["out"], replayed["quarantined"]) == (1, 1, 0)
    assert json.loads(noria(project, "run", "clicks", "--json").stdout)["components"][0]["run"]["rows"]["in"] == 0


def test_rows_of_a_source_are_replayed(project: Path) -> None:
    noria(project, "run", "past")
    assert "user: not int64" in noria(project, "quarantine").stdout
    said = json.loads(noria(project, "quarantine", "replay", "past", "--json").stdout)
    assert (said["in"], said["out"], said["quarantined"]) == (1, 0, 1)


def test_mistakes_are_explained(project: Path) -> None:
    wrong = noria(project, "events", "send", "clicks", stdin=events((1, 1, 1), ("x", 1, 1)), rc=1)
    assert "-, line 2: user: Expected `int`, got `str`; 0 events were sent" in wrong.stderr
    assert "did you mean 'clicks'" in noria(project, "events", "tail", "click", rc=1).stderr
    assert "did you mean 'clicks'" in noria(project, "stream", "click", rc=1).stderr
    assert "did you mean 'past'" in noria(project, "quarantine", "show", "pst", rc=1).stderr
    assert "no row is in quarantine" in noria(project, "quarantine").stdout
    assert "can't be read" in noria(project, "events", "send", "clicks", "none.jsonl", rc=1).stderr


def test_a_group_that_is_taken_for_a_stream_is_explained(project: Path) -> None:
    groups = """
surf = nr.FeatureGroup("surf", "user", clicks, {"n": nr.count()})
old = nr.FeatureGroup("old", "user", past, {"n": nr.count()})
system = nr.System("web", [past, clicks, surf, old])
"""
    (project / "system.py").write_text(SYSTEM + groups)
    assert "hint: noria stream clicks" in noria(project, "stream", "surf", rc=1).stderr
    wrong = noria(project, "stream", "old", "--once", rc=1)
    assert "it reads 'past', which is no stream\n  hint: noria run old computes it" in wrong.stderr


def test_each_line_is_an_event_by_itself_and_keeps_its_number(project: Path) -> None:
    good = events((1, 1, 1))
    # Joined by a comma, the halves would be one event that swallows what is between them.
    halves = '{"user": 2, "x": 1, "at": 1, "more": [1\n' + "2]}\n"
    for broken in (halves, '{"user": 2, "at": 1}, {"user": 3, "at": 1}\n'):
        wrong = noria(project, "events", "send", "clicks", stdin=f"\n{good}\n \n{broken}{good}", rc=1)
        assert "-, line 5: " in wrong.stderr
        assert "0 events were sent" in wrong.stderr
    many = "\n".join([good] * 1_200) + '\n{"user": "x"}\n'
    wrong = noria(project, "events", "send", "clicks", stdin=many, rc=1)
    assert "-, line 2401: user: Expected `int`" in wrong.stderr
    assert "1,000 events were sent, the last of them from before line 2001" in wrong.stderr
    assert json.loads(noria(project, "stream", "--once", "--json").stdout)["clicks"]["in"] == 1_000


def test_a_port_that_no_machine_has_is_explained(project: Path) -> None:
    wrong = noria(project, "stream", "--metrics-port", "99999", rc=1)
    assert "can't listen on 127.0.0.1:99999" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_a_changed_type_stops_the_stream_and_says_what_helps(project: Path) -> None:
    noria(project, "events", "send", "clicks", stdin=events((1, 1, 1)))
    noria(project, "stream", "--once")
    noria(project, "events", "send", "clicks", stdin=events((2, 1, 1)))
    retyped = SYSTEM.replace(
        'clicks = nr.Stream("clicks", schema={"user": "int64"', 'clicks = nr.Stream("clicks", schema={"user": "str"'
    )
    (project / "system.py").write_text(retyped)
    for words in (("stream", "--once"), ("stream",)):
        noria(project, "events", "send", "clicks", stdin='{"user": "2", "x": 1, "at": 1}\n')
        wrong = noria(project, *words, rc=1)
        assert "has 'user' as" in wrong.stderr
        assert "give the stream another name" in wrong.stderr
        assert "--full" not in wrong.stderr
    renamed = retyped.replace('nr.Stream("clicks"', 'nr.Stream("visits", topic="clicks"')
    (project / "system.py").write_text(renamed)
    assert json.loads(noria(project, "stream", "--once", "--json").stdout)["visits"]["in"] == 4


def test_a_running_processor_tells_metrics_and_ends_with_all_done(project: Path) -> None:
    words = [sys.executable, "-m", "noria", "stream", "--metrics-port", "0"]
    with subprocess.Popen(words, cwd=project, stderr=subprocess.PIPE, text=True) as child:
        assert child.stderr is not None
        url = child.stderr.readline().split()[-1]
        noria(project, "events", "send", "clicks", stdin=events(*((n, 1, n) for n in range(100))))
        deadline = time.monotonic() + 30
        text = ""
        while "} 100" not in text and time.monotonic() < deadline:
            time.sleep(0.1)
            text = urllib.request.urlopen(url, timeout=5).read().decode()
        assert 'noria_stream_events_total{outcome="out",stream="clicks"} 100' in text
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 0
    assert json.loads(noria(project, "stream", "--once", "--json").stdout)["clicks"]["in"] == 0
