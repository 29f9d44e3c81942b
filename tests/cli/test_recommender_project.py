"""The recommender template on its real data, through the command line and over HTTP."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from noria.core import Settings
from noria.registry import ModelRegistry
from noria.storage import Workspace

Noria = Callable[..., subprocess.CompletedProcess[str]]


def components(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, Any]]:
    return {part["name"]: part for part in json.loads(done.stdout)["components"]}


def post(url: str, body: object) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "noria", "serve", "--port", "0", *words]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        try:
            yield found[0], process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
        assert process.returncode == 0


def test_a_project_is_short_and_its_first_run_does_everything(movies: Path, noria: Noria) -> None:
    assert len((movies / "system.py").read_text().splitlines()) <= 40
    again = noria("run", cwd=movies)
    assert "everything is fresh: nothing to do (5 components)" in again.stdout
    assert {part["status"] for part in components(noria("run", "--json", cwd=movies)).values()} == {"fresh"}
    status = noria("status", cwd=movies).stdout
    assert status.count("fresh") == 5


def test_every_rating_is_accounted_for(movies: Path, noria: Noria) -> None:
    runs = {name: part["run"] for name, part in components(noria("run", "--json", cwd=movies)).items()}
    assert runs["ratings"]["rows"] == {"in": 100_004, "out": 100_004, "quarantined": 0, "filtered": 0}
    assert runs["movies"]["rows"]["out"] == 9_066
    notes = runs["movies-for-you"]["notes"]
    assert set(notes["models"]) == {"als", "item_knn", "popular"}
    for metrics in notes["models"].values():
        assert all(low < value < high for value, low, high in metrics.values())
    # Both personal models are better than popularity, beyond their intervals' overlap in expectation.
    assert notes["models"]["als"]["ndcg@10"][0] > notes["models"]["popular"]["ndcg@10"][0]


def test_only_what_depends_on_a_change_runs(movies: Path, noria: Noria) -> None:
    text = (movies / "system.py").read_text()
    (movies / "system.py").write_text(text.replace('window="7d"', 'window="14d"'))
    assert "its definition changed" in noria("status", cwd=movies).stdout
    done = {name: part["status"] for name, part in components(noria("run", "--json", cwd=movies)).items()}
    assert done.pop("popularity") == "succeeded"
    assert set(done.values()) == {"fresh"}


def test_what_was_removed_or_damaged_is_made_again(movies: Path, noria: Noria) -> None:
    shutil.rmtree(movies / ".noria" / "online")
    status = noria("status", cwd=movies).stdout
    assert status.count("its online values are gone") == 2
    blob = next(path for path in (movies / ".noria" / "blobs").rglob("*") if path.is_file())
    blob.chmod(0o644)
    blob.write_bytes(b"damaged")
    assert "corrupt" in noria("recommend", "15", cwd=movies, status=1).stderr
    done = {name: part["status"] for name, part in components(noria("run", "--json", cwd=movies)).items()}
    assert done == {
        "ratings": "fresh",
        "movies": "fresh",
        "taste": "succeeded",
        "popularity": "succeeded",
        "movies-for-you": "succeeded",
    }
    assert noria("recommend", "15", cwd=movies).stdout.count("\n") == 11
    shutil.rmtree(movies / ".noria" / "tables")
    assert "its table is gone" in noria("run", cwd=movies).stdout
    assert "nothing to do" in noria("run", cwd=movies).stdout


def test_bad_rows_go_to_quarantine_with_position_and_reason(movies: Path, noria: Noria) -> None:
    with (movies / "data" / "ratings.csv").open("a") as file:
        file.write("1,31,9.5,1260759144\n1,31,good,1260759144\n,31,3.0,1260759144\n")
    rows = components(noria("run", "ratings", "--json", cwd=movies))["ratings"]["run"]["rows"]
    assert rows == {"in": 3, "out": 0, "quarantined": 3, "filtered": 0}  # only what is new is read
    with Workspace.open(Settings.load(movies, {})) as workspace:
        bad = workspace.table("ratings__quarantine").read().sort("position")
    assert bad["position"].to_list() == [100_005, 100_006, 100_007]
    assert bad["reasons"].to_list() == [
        ["rating between 0.5 and 5"],
        ["rating: 'good' is not float32"],
        ["user_id: missing"],
    ]


def test_your_own_parquet_needs_two_paths_and_a_schema(movies: Path, noria: Noria) -> None:
    for name in ("ratings", "movies"):
        pl.read_csv(movies / "data" / f"{name}.csv").write_parquet(movies / "data" / f"{name}.parquet")
        (movies / "data" / f"{name}.csv").unlink()
    (movies / "system.py").write_text((movies / "system.py").read_text().replace(".csv", ".parquet"))
    parts = components(noria("run", "--json", cwd=movies))
    assert parts["ratings"]["run"]["rows"]["out"] == 100_004
    assert noria("recommend", "15", cwd=movies).stdout.count("\n") == 11


def test_users_may_have_text_for_ids(movies: Path, noria: Noria) -> None:
    (movies / "system.py").write_text(
        (movies / "system.py").read_text().replace('"user_id": "int64"', '"user_id": "str"')
    )
    noria("run", cwd=movies)
    assert "not known" not in noria("recommend", "15", cwd=movies).stderr
    assert "not known" in noria("recommend", "ann'; --", cwd=movies).stderr


def test_the_graph_is_drawn_in_four_ways(movies: Path, noria: Noria) -> None:
    graph = json.loads(noria("graph", "--format", "json", cwd=movies).stdout)
    assert graph["system"] == "movies"
    assert all(set(part) == {"name", "kind", "description", "dependencies"} for part in graph["components"])
    assert noria("graph", "--format", "mermaid", cwd=movies).stdout.startswith("flowchart LR")
    assert noria("graph", "--format", "svg", cwd=movies).stdout.startswith("<svg")
    assert "load-balancer" in noria("graph", cwd=movies).stdout


def test_recommendations_leave_out_what_was_seen_and_cold_users_get_the_popular(movies: Path, noria: Noria) -> None:
    known = json.loads(noria("recommend", "15", "-k", "20", "--json", cwd=movies).stdout)
    seen = pl.read_csv(movies / "data" / "ratings.csv").filter(pl.col("user_id") == 15, pl.col("rating") >= 4)
    recommended = [item["item_id"] for item in known["items"]]
    assert len(set(recommended)) == 20
    assert not set(recommended) & set(seen["item_id"])
    cold = noria("recommend", "123456789", cwd=movies)
    assert "not known" in cold.stderr
    assert cold.stdout.count("\n") == 11


def test_mistakes_are_explained_without_a_stack_trace(movies: Path, noria: Noria, tmp_path: Path) -> None:
    assert "noria init" in noria("run", cwd=tmp_path, status=1).stderr
    assert "did you mean 'recommender'" in noria("init", "x", "--template", "recomender", cwd=tmp_path, status=1).stderr
    assert "not empty" in noria("init", "shop", cwd=tmp_path, status=1).stderr
    assert "versions are 1 to 1" in noria("models", "promote", "movies-for-you@7", cwd=movies, status=1).stderr
    assert "no earlier version" in noria("models", "rollback", "movies-for-you", cwd=movies, status=1).stderr
    text = (movies / "system.py").read_text()
    (movies / "system.py").write_text(text.replace('nr.mean("rating")', 'nr.mean("raiting")'))
    error = noria("run", cwd=movies, status=1).stderr
    assert "did you mean 'rating'" in error
    assert re.search(r"system\.py:\d+", error)
    (movies / "system.py").write_text(text)
    error = noria("serve", "--host", "0.0.0.0", cwd=movies, status=1).stderr
    assert "there are no API keys" in error
    (movies / "system.py").write_text(text.replace("data/ratings.csv", "data/nope.csv"))
    assert "nope.csv" in noria("run", cwd=movies, status=1).stderr
    for broken in ("this is not python", "import nothing_like_this", "x = 1", "1/0"):
        (movies / "system.py").write_text(broken)
        assert "Traceback" not in noria("run", cwd=movies, status=1).stderr


def test_killed_at_any_moment_the_next_run_ends_as_if_nothing_had_happened(
    movies_once: Path, noria: Noria, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(movies_once, tmp_path / "shop", ignore=shutil.ignore_patterns(".noria")))
    chance = random.Random(7)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-m", "noria", "run"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(chance.uniform(0.5, 3.5))
        process.send_signal(signal.SIGKILL)
        process.wait()
    noria("run", cwd=folder)
    assert "nothing to do" in noria("run", cwd=folder).stdout
    with (
        Workspace.open(Settings.load(movies_once, {})) as expected,
        Workspace.open(Settings.load(folder, {})) as found,
    ):
        for table in ("ratings", "movies"):
            assert found.table(table).read().equals(expected.table(table).read())
        mine, theirs = (ModelRegistry.of(w).get("movies-for-you") for w in (found, expected))
        assert mine.metrics == theirs.metrics
        assert mine.files == theirs.files
        assert len(ModelRegistry.of(found).versions("movies-for-you")) == 1


def test_served_over_http(movies: Path, noria: Noria) -> None:
    expected = json.loads(noria("recommend", "15", "--json", cwd=movies).stdout)
    with serving(movies) as (url, _):
        assert post(f"{url}/recommend", {"user_id": 15, "k": 10}) == (200, expected)
        status, cold = post(f"{url}/recommend", {"user_id": 10**9})
        assert (status, cold["cold"], len(cold["items"])) == (200, True, 10)
        wrong: list[tuple[object, str | None]] = [
            ({"user_id": "15"}, "user_id"),
            ({"user_id": 15, "k": 0}, "k"),
            ({"user_id": 15, "k": 1001}, "k"),
            ({"user_id": 15, "kk": 1}, "kk"),
            ({}, "user_id"),
            ([], None),
            (b'{"user_id": NaN}', None),
            (b"{", None),
            (b"", None),
            (b'{"user_id": 1}' + b" " * 2_000_000, None),
        ]
        for body, field in wrong:
            status, problem = post(f"{url}/recommend", body)
            assert 400 <= status < 500, body
            assert problem["status"] == status
            assert problem.get("field") == field
        assert post(f"{url}/recommend", {"user_id": 15, "k": 10}) == (200, expected)


def test_a_killed_server_is_not_noticed_and_a_new_champion_is_followed(movies: Path, noria: Noria) -> None:
    (movies / "system.py").write_text((movies / "system.py").read_text().replace("factors=64", "factors=32"))
    with serving(movies) as (url, process):
        for _ in range(3):
            replicas = [pid for pid in _descendants(process.pid) if "noria.serving" in _command(pid)]
            os.kill(random.Random(len(replicas)).choice(replicas), signal.SIGKILL)
            assert all(post(f"{url}/recommend", {"user_id": 15})[0] == 200 for _ in range(50))
        noria("run", cwd=movies)
        deadline = time.monotonic() + 20
        while post(f"{url}/recommend", {"user_id": 15})[1]["version"] != 2:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *_descendants(child)]
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except FileNotFoundError:
        return ""


def test_the_demo_prints_its_report_as_json(tmp_path: Path, noria: Noria) -> None:
    report = json.loads(noria("demo", "--json", cwd=tmp_path).stdout)
    assert set(report) == {"rows", "features", "models", "promoted", "user_id", "recommendations", "seconds"}
    assert report["rows"] == {"in": 109_070, "out": 109_070, "quarantined": 0, "filtered": 0}
    assert report["features"] == {"taste": 3, "popularity": 2}
    assert len(report["recommendations"]) == 10
    assert set(report["recommendations"][0]) == {"item_id", "title", "score"}
    assert noria("demo", "--once", cwd=tmp_path).stdout.count("promoted") == 1


@pytest.mark.parametrize("word", ["-5", "movie"])
def test_a_user_that_can_not_exist_gets_the_popular_items_or_an_explanation(
    movies: Path, noria: Noria, word: str
) -> None:
    done = noria("recommend", "--", word, cwd=movies, status=0 if word == "-5" else 1)
    assert "Traceback" not in done.stderr
