"""`noria demo`: the whole wheel on real ratings, and a report of what came of it."""

from __future__ import annotations

import http.client
import json
import socket
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from noria.cli.init import write_project
from noria.cli.project import load_system
from noria.cli.run import run_with_progress, summary
from noria.cli.serve import supervisor
from noria.cli.show import json_out, out, say, table
from noria.core import ConfigError, NoriaError, Settings
from noria.gateway import Supervisor
from noria.storage import Workspace
from noria.system import RunReport, System

_K = 10
_REPORT = ("rows", "features", "models", "promoted", "user_id", "recommendations", "seconds")


def demo(options: Namespace) -> int:
    """Make the project, run it, serve it, ask it, report."""
    folder, seconds = Path(options.dir), {}
    began = time.perf_counter()
    if not (folder / "system.py").exists():
        say(f"Writing the project {folder}/ (template: recommender, data: MovieLens small)")
        write_project(folder, "recommender")
    seconds["project"] = time.perf_counter() - began
    system, settings = load_system(folder), _settings(folder, options.port)
    say(f"Running {folder}/system.py")
    with Workspace.open(settings) as workspace:
        report = run_with_progress(system, workspace)
    say(summary(report))
    if report.failed:
        return 1
    seconds |= {name: step.run.seconds for name, step in report.steps.items() if step.run and step.status != "fresh"}
    seconds["run"] = report.seconds
    say(f"Starting {settings.serve.replicas} servers behind the load balancer")
    began = time.perf_counter()
    with supervisor(system, settings) as running:
        seconds["start servers"] = time.perf_counter() - began
        began = time.perf_counter()
        answer = _ask(running, options.user)
        seconds["request"] = time.perf_counter() - began
        result = _result(system, settings, report, options.user, answer)
        result["seconds"] = {name: round(value, 3) for name, value in seconds.items()}
        if options.json:
            json_out({name: result[name] for name in _REPORT})
        else:
            out(_text(result))
        if not (options.json or options.once) and sys.stdout.isatty():
            say(f"\nServing on {running.url} until Ctrl-C. Try:")
            say(f"  curl {running.url}/recommend -d '{{\"user_id\": {options.user}}}'")
            running.wait()
    return 0


def _settings(folder: Path, port: int | None) -> Settings:
    settings = Settings.load(folder)
    if port is None:
        port = settings.serve.port if _is_free(settings.serve.host, settings.serve.port) else 0
    return replace(settings, serve=replace(settings.serve, port=port or _free_port(settings.serve.host)))


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _ask(running: Supervisor, user: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection(urlsplit(running.url).netloc, timeout=30)
    try:
        connection.request("POST", "/recommend", json.dumps({"user_id": user, "k": _K}))
        response = connection.getresponse()
        body = response.read()
    except OSError as error:
        raise NoriaError(f"the load balancer at {running.url} doesn't answer: {error}") from error
    finally:
        connection.close()
    answer: dict[str, Any] = json.loads(body)
    if response.status != 200:
        raise ConfigError(f"the server refused the request: {answer.get('detail', body)}")
    return answer


def _result(system: System, settings: Settings, report: RunReport, user: int, answer: dict[str, Any]) -> dict[str, Any]:
    runs = {name: step.run for name, step in report.steps.items() if step.run is not None}
    kinds = {part.name: part.kind for part in system.components}
    rows = {
        key: sum(run.rows.get(key, 0) for name, run in runs.items() if kinds[name] == "source")
        for key in ("in", "out", "quarantined", "filtered")
    }
    trained = next(run for name, run in runs.items() if kinds[name] == "recommender")
    with Workspace.open(settings) as workspace:
        movies = workspace.table("movies").read(columns=["item_id", "title"])
    titles = dict(zip(movies["item_id"].to_list(), movies["title"].to_list(), strict=True))
    return {
        "rows": rows,
        "features": {name: run.notes["features"] for name, run in runs.items() if kinds[name] == "features"},
        "models": trained.notes["models"],
        "users": trained.notes["users"],
        "chosen": trained.notes["chosen"],
        "promoted": {"model": answer["model"], "version": answer["version"]},
        "user_id": user,
        "recommendations": [{**item, "title": titles.get(item["item_id"])} for item in answer["items"]],
    }


def _text(result: dict[str, Any]) -> str:
    rows, promoted = result["rows"], result["promoted"]
    features = ", ".join(f"{name} {count}" for name, count in result["features"].items())
    names = list(next(iter(result["models"].values())))
    quality = [
        (model, *(f"{value:.4f}  [{low:.4f}, {high:.4f}]" for value, low, high in metrics.values()))
        for model, metrics in result["models"].items()
    ]
    movies = [(n, item["title"], item["score"]) for n, item in enumerate(result["recommendations"], 1)]
    stages = ("project", "run", "start servers", "request")
    seconds = ", ".join(f"{name} {result['seconds'][name]:.2f}" for name in stages)
    return "\n".join(
        [
            "",
            f"rows       {rows['in']:,} in = {rows['out']:,} out + {rows['quarantined']:,} quarantined "
            f"+ {rows['filtered']:,} filtered",
            f"features   {features}",
            f"quality    on the newest ratings of {result['users']} users, every movie ranked; 95 % intervals",
            table(("model", *names), quality),
            f"promoted   {promoted['model']} version {promoted['version']} ({result['chosen']}, best in validation)",
            f"for user   {result['user_id']}, asked over HTTP through the load balancer:",
            table(("#", "title", "score"), movies, ("#", "score")),
            f"seconds    {seconds}",
        ]
    )
