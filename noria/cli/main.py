"""The words of the command line."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import TypeAlias

import noria
from noria.cli.deployment_words import add_deployments
from noria.cli.model_words import add_decisions, add_gc, add_reproduce, add_versions
from noria.cli.server_words import add_servers
from noria.core.errors import NoriaError

_EPILOG = """\
start here:
  noria demo                               the whole wheel on real ratings, in about a minute
  noria init shop --template recommender   a project of your own; then: cd shop && noria run && noria serve

A project is a folder with a system.py; settings are in noria.toml and in NORIA_* variables.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 an error that the user can put right, 2 wrong words."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not hasattr(options, "command"):
        parser.print_help()
        return 0
    # OpenMP's threads spin while they wait for each other. With one other process busy on two cores, a fit of 3 s took
    # 68 s; threads that sleep take 6 s, busy neighbour or not. Read when a library loads, so it is set before any does.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    module, _, function = options.command.partition(":")
    try:
        status: int = getattr(importlib.import_module(f"noria.cli.{module}"), function)(options)
        sys.stdout.flush()
    except NoriaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; what was finished is kept\n")
        return 130
    except BrokenPipeError:  # the reader (`head`) has gone; keep the interpreter from writing at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "noria",
        description="One Python package that runs a whole machine-learning system.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"noria {noria.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    project = argparse.ArgumentParser(add_help=False)
    project.add_argument("--project", default=".", metavar="DIR", help="the folder with system.py (default: here)")
    _add_start(commands)
    _add_work(commands, project)
    _add_streams(commands, project)
    _add_quarantine(commands, project)
    _add_features(commands, project)
    _add_models(commands, project)
    add_deployments(commands, project, _add)
    _add_predictions(commands, project)
    _add_keys(commands, project)
    add_servers(commands, project, _add)
    _add_export(commands, project)
    return parser


_Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _add(
    commands: _Commands, name: str, command: str, help: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    made = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".", parents=parents)
    made.set_defaults(command=command)
    return made


def _add_start(commands: _Commands) -> None:
    demo = _add(commands, "demo", "demo:demo", "run the whole wheel on real movie ratings")
    demo.add_argument("--dir", default="demo", help="the project folder to make or reuse (default: demo)")
    demo.add_argument("--user", type=int, default=15, help="whose recommendations to show (default: 15)")
    demo.add_argument("--port", type=int, help="the load balancer's port (default: 8080, or a free one)")
    demo.add_argument("--once", action="store_true", help="stop after the report instead of serving until Ctrl-C")
    demo.add_argument("--json", action="store_true", help="print the report as JSON; implies --once")
    init = _add(commands, "init", "init:init", "write a new project folder")
    init.add_argument("name", help="the folder to make")
    init.add_argument("--template", default="recommender", metavar="NAME", help="recommender (default) or tabular")


def _add_work(commands: _Commands, project: argparse.ArgumentParser) -> None:
    run = _add(commands, "run", "run:run", "bring everything that is stale up to date", project)
    run.add_argument("component", nargs="?", help="only this component and what it depends on")
    run.add_argument("--full", action="store_true", help="run what is fresh too, and compute all of it anew")
    run.add_argument("--json", action="store_true", help="print the report as JSON")
    serve = _add(commands, "serve", "serve:serve", "answer requests behind the load balancer until Ctrl-C", project)
    serve.add_argument("--host", help="address to listen on (default: serve.host, 127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (default: serve.port, 8080)")
    serve.add_argument("--replicas", type=int, help="server processes (default: serve.replicas, 2)")
    serve.add_argument(
        "--with-stream", action="store_true", help="process the streams' events too, and keep their features up"
    )
    serve.add_argument(
        "--take-over", action="store_true", help="take the place of the noria serve that runs; no request fails"
    )
    what = "run the console alone: administration in the browser, and over HTTP"
    admin = _add(commands, "admin", "admin:admin", what, project)
    admin.add_argument("--host", help="address to listen on (default: serve.admin_host, 127.0.0.1)")
    admin.add_argument("--port", type=int, help="port to listen on (default: serve.admin_port, 8081; 0: any free one)")
    status = _add(commands, "status", "run:status", "show what is fresh, what is stale and why", project)
    status.add_argument("--json", action="store_true", help="print it as JSON")
    graph = _add(commands, "graph", "graph:graph", "draw the components and what they depend on", project)
    graph.add_argument("--format", choices=["text", "json", "mermaid", "svg"], default="text")


def _add_streams(commands: _Commands, project: argparse.ArgumentParser) -> None:
    stream = _add(
        commands, "stream", "stream:stream", "bring events into tables and online features until Ctrl-C", project
    )
    stream.add_argument("names", nargs="*", metavar="STREAM", help="only these (default: all)")
    stream.add_argument("--once", action="store_true", help="process what is in the log now, and stop")
    stream.add_argument("--json", action="store_true", help="with --once: print the counts as JSON")
    stream.add_argument("--metrics-port", type=int, metavar="PORT", help="serve Prometheus metrics on 127.0.0.1:PORT")
    events = _add(commands, "events", "stream:tail", "send events to a stream's topic, and look at them", project)
    actions = events.add_subparsers(title="actions", metavar="ACTION", required=True)
    send = _add(actions, "send", "stream:send", "append the JSON lines of a file", project)
    send.add_argument("stream", metavar="STREAM")
    send.add_argument("file", nargs="?", default="-", help="JSON lines (default: standard input)")
    tail = _add(actions, "tail", "stream:tail", "print the newest events with partition and offset", project)
    tail.add_argument("stream", metavar="STREAM")
    tail.add_argument("-n", "--limit", type=int, default=10, help="of each partition (default: 10)")
    tail.add_argument("-f", "--follow", action="store_true", help="go on with those that come, until Ctrl-C")


def _add_quarantine(commands: _Commands, project: argparse.ArgumentParser) -> None:
    what = "list, show and replay the rows that broke a contract"
    quarantine = _add(commands, "quarantine", "quarantine:listing", what, project)
    quarantine.set_defaults(json=False)
    actions = quarantine.add_subparsers(title="actions", metavar="ACTION")
    listing = _add(actions, "list", "quarantine:listing", "count them by source and rule", project)
    listing.add_argument("--json", action="store_true", help="print the counts as JSON")
    show = _add(actions, "show", "quarantine:show", "show rows with their place, text and every reason", project)
    show.add_argument("source", metavar="SOURCE")
    show.add_argument("--rule", help="only those with this reason, as `list` names it")
    show.add_argument("--limit", type=int, default=20, metavar="N", help="the newest N (default: 20)")
    show.add_argument("--json", action="store_true", help="print them as JSON")
    replay = _add(
        actions, "replay", "quarantine:replay", "judge them again by the contract as it is now in system.py", project
    )
    replay.add_argument("source", metavar="SOURCE")
    replay.add_argument("--json", action="store_true", help="print the counts as JSON")


def _add_features(commands: _Commands, project: argparse.ArgumentParser) -> None:
    features = _add(
        commands, "features", "features:listing", "list, show, compare and backfill feature groups", project
    )
    features.set_defaults(json=False)
    actions = features.add_subparsers(title="actions", metavar="ACTION")
    listing = _add(actions, "list", "features:listing", "list the groups with their newest versions", project)
    show = _add(actions, "show", "features:show", "show a group's features and statistics of their values", project)
    show.add_argument("label", metavar="GROUP[@VERSION]")
    history = _add(actions, "history", "features:history", "list a group's versions and what changed", project)
    history.add_argument("name", metavar="GROUP")
    diff = _add(actions, "diff", "features:diff", "show what makes two versions different", project)
    diff.add_argument("one", metavar="GROUP@VERSION")
    diff.add_argument("other", metavar="GROUP@VERSION")
    backfill = _add(
        actions, "backfill", "features:backfill", "compute a group over the whole history, into a table", project
    )
    backfill.add_argument("label", metavar="GROUP[@VERSION]", help="as system.py defines it, or an older version")
    backfill.add_argument("--out", required=True, metavar="TABLE", help="the table to fill; it is replaced")
    backfill.add_argument("--labels", metavar="SOURCE", help="as of the times of this source's rows")
    backfill.add_argument("--time", metavar="COLUMN", help="the labels' times (default: the source's event time)")
    backfill.add_argument("--every", metavar="DURATION", help="instead of labels: all entities every 1d, 12h, …")
    backfill.add_argument("--from", dest="start", metavar="TIME", help="with --every: the first instant (ISO, UTC)")
    backfill.add_argument("--until", metavar="TIME", help="with --every: up to this instant, without it")
    for action in (listing, show, history, diff, backfill):
        action.add_argument("--json", action="store_true", help="print it as JSON")


def _add_models(commands: _Commands, project: argparse.ArgumentParser) -> None:
    models = _add(commands, "models", "versions:listing", "list, show, compare, name and promote models", project)
    models.set_defaults(json=False)
    actions = models.add_subparsers(title="actions", metavar="ACTION")
    add_versions(actions, project, _add)
    dataset = _add(
        actions, "dataset", "models:dataset", "make what a version was trained on again, bit for bit", project
    )
    dataset.add_argument("label", metavar="MODEL[@VERSION]")
    dataset.add_argument("--out", metavar="FILE", help="write the rows into this Parquet file")
    dataset.add_argument("--json", action="store_true", help="print what was found as JSON")
    report = _add(actions, "report", "report:report", "show how good a version is, in short or as a page", project)
    report.add_argument("label", metavar="MODEL[@VERSION]")
    report.add_argument("--open", action="store_true", help="open the page with all its charts in the browser")
    report.add_argument("--out", metavar="FILE", help="write that page into this file")
    report.add_argument("--json", action="store_true", help="print all of it as JSON")
    add_gc(actions, project, _add)
    add_decisions(actions, project, _add)
    add_reproduce(commands, project, _add)
    export = _add(actions, "export", "mlflow:export", "write a version as a model directory of MLflow's", project)
    export.add_argument("label", metavar="MODEL[@VERSION]")
    export.add_argument("folder", help="a folder that is not there yet")
    export.add_argument("--format", choices=["mlflow"], default="mlflow", help="(default: mlflow)")
    taken = _add(
        actions, "import", "mlflow:import_model", "register a model in ONNX, or a model directory of MLflow's", project
    )
    taken.add_argument("path", help="a file that ends in .onnx, or the folder in which MLmodel is")
    taken.add_argument("name", metavar="MODEL", help="the model's name in the registry")
    recommend = _add(commands, "recommend", "models:recommend", "show a user's recommendations", project)
    recommend.add_argument("user", help="the user's id")
    recommend.add_argument("-k", type=int, default=10, help="how many (default: 10)")
    recommend.add_argument("--model", metavar="MODEL[@VERSION]", help="which model (default: the only one)")
    recommend.add_argument("--json", action="store_true", help="print the answer as JSON")
    predict = _add(
        commands, "predict", "models:predict", "predict for the rows of a CSV, Parquet or JSON-lines file", project
    )
    predict.add_argument("file", help="rows with the model's inputs, or with entity ids; - for CSV on standard input")
    predict.add_argument("--model", metavar="MODEL[@VERSION]", help="which model (default: the only one)")
    predict.add_argument("--json", action="store_true", help="print JSON lines instead of CSV")


_PARITY = """\
Servers record a share of the predictions with the features that they read (predictions.log_share in noria.toml). Each
recorded value is computed again as training sets are: of the same entity, as of the same instant, by the same version
of the definition. Then it is

  equal       the same to the bit, or missing on both sides (numbers within 1e-9 of themselves count, and are told)
  late        different now, and equal on the rows that were there when it was made
  different   different, and nothing explains it: the exit status is then 1
  unknown     different now, and the rows of that time can't be told or read any more
"""


def _add_predictions(commands: _Commands, project: argparse.ArgumentParser) -> None:
    which = argparse.ArgumentParser(add_help=False)
    which.add_argument("--model", metavar="MODEL[@VERSION]", help="only of this model (default: all)")
    which.add_argument("--since", metavar="TIME", help="only from then on: 2h, 7d, or 2026-01-31T12:00:00Z")
    which.add_argument("--limit", type=int, metavar="N", help="the newest N (default: 20; of parity: 10,000)")
    which.add_argument("--json", action="store_true", help="print it as JSON")
    what = "list recorded predictions, and trace one to its model and features"
    predictions = _add(commands, "predictions", "predictions:listing", what, project)
    predictions.set_defaults(model=None, since=None, limit=None, json=False)
    actions = predictions.add_subparsers(title="actions", metavar="ACTION")
    _add(actions, "list", "predictions:listing", "list the newest", project, which)
    show = _add(actions, "show", "predictions:show", "show one with its model, features and their freshness", project)
    show.add_argument("id", metavar="ID", help="the request's id: X-Request-Id of its answer")
    show.add_argument("--json", action="store_true", help="print it as JSON")
    parity = _add(
        commands, "parity", "parity:parity", "compare the features that servers read with training sets", project, which
    )
    parity.epilog = _PARITY
    parity.formatter_class = argparse.RawDescriptionHelpFormatter


def _add_keys(commands: _Commands, project: argparse.ArgumentParser) -> None:
    keys = _add(commands, "keys", "keys:listing", "make, list, replace and revoke the API keys of the servers", project)
    keys.set_defaults(json=False)
    actions = keys.add_subparsers(title="actions", metavar="ACTION")
    create = _add(actions, "create", "keys:create", "make a key and print it, this once", project)
    create.add_argument("name", metavar="NAME", help="what the key is called in lists")
    create.add_argument(
        "--scope", default="predict", metavar="SCOPES", help="predict, events, admin, or several: predict,events"
    )
    create.add_argument("--rate", metavar="RATE", help="requests that it is good for: 100/s, 600/m, 1000/h")
    create.add_argument("--burst", type=int, metavar="N", help="of these at once (default: as many as RATE names)")
    create.add_argument("--expires", metavar="DURATION", help="how long it lives: 90d, 12h (default: for ever)")
    listing = _add(actions, "list", "keys:listing", "list the names with their scopes, limits and keys", project)
    rotate = _add(actions, "rotate", "keys:rotate", "make another key for a name; the one before ends", project)
    rotate.add_argument("name", metavar="NAME")
    rotate.add_argument(
        "--grace", default="24h", metavar="DURATION", help="how long the one before still works; 0: not at all (24h)"
    )
    revoke = _add(actions, "revoke", "keys:revoke", "end all keys of a name, within a second", project)
    revoke.add_argument("name", metavar="NAME")
    history = _add(actions, "history", "keys:history", "show who changed what, when and why", project)
    history.add_argument("name", nargs="?", metavar="NAME", help="only of this name (default: all)")
    for action in (create, rotate, revoke):
        action.add_argument("--why", default="", help="the reason, for the audit trail")
    for action in (create, listing, rotate, history):
        action.add_argument("--json", action="store_true", help="print it as JSON")


def _add_export(commands: _Commands, project: argparse.ArgumentParser) -> None:
    what = "print what runs this project elsewhere: a systemd unit, a Dockerfile, compose or Kubernetes"
    export = _add(commands, "export", "export:export", what, project)
    export.add_argument("target", choices=["systemd", "docker", "compose", "kubernetes"])
    export.add_argument("--output", metavar="DIR", help="write the files into this folder instead of printing them")
    export.add_argument("--name", help="of the service and the image (default: the system's)")
    export.add_argument("--force", action="store_true", help="with --output: replace files that are there")
