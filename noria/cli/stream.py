"""`noria stream` and `noria events`: from the log into tables and the online store; into the log, and out of it."""

from __future__ import annotations

import itertools
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO

from noria.cli.progress import TerminalProgress
from noria.cli.project import load_system
from noria.cli.show import json_out, out, say, table
from noria.core import (
    ConfigError,
    MissingExtraError,
    NoriaError,
    RequestError,
    SchemaError,
    Settings,
    SystemClock,
    allowed,
    to_iso,
)
from noria.core.lazy import load_before_threads
from noria.features import FeatureGroup
from noria.features.feed import Feed, feeds
from noria.pipelines import Stream, StreamProcessor, StreamResult
from noria.pipelines.intake import Intake, StreamSpec, publish
from noria.storage import Workspace
from noria.storage.event_log import EventLog
from noria.system import System
from noria.telemetry import MetricsCollector
from noria.telemetry.metrics import TEXT
from noria.training.live import hold_live

_TELL_SECONDS = 10.0
_SEND = 1_000


def stream(options: Namespace) -> int:
    """Process streams until Ctrl-C, or what is in the log now."""
    system = load_system(options.project)
    streams = _streams(system)
    groups = [part for part in system.components if isinstance(part, FeatureGroup)]
    _refuse_groups(groups, options.names)
    chosen = [_named(streams, name) for name in options.names or streams]
    if not chosen:
        _named(streams, "")
    settings = Settings.load(options.project)
    publish(streams.values(), settings)
    if options.once:
        return _once(chosen, groups, settings, as_json=options.json)
    stop, metrics, failures = threading.Event(), MetricsCollector(), list[Exception]()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    load_before_threads()
    threads = [
        threading.Thread(target=_process, args=(each, groups, settings, metrics, stop, failures), name=each.name)
        for each in chosen
    ]
    with _metrics_server(options.metrics_port, metrics):
        say(f"processing {', '.join(each.name for each in chosen)}; stop: Ctrl-C")
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
    for error in failures:
        say(f"error: {error}")
    return 1 if failures else 0


def _once(chosen: list[Stream], groups: list[FeatureGroup], settings: Settings, *, as_json: bool) -> int:
    results: dict[str, StreamResult] = {}
    with Workspace.open(settings) as workspace, TerminalProgress() as progress:
        for each in chosen:
            with StreamProcessor(each, workspace, keeps=_feeds(each, workspace, groups)) as processor:
                results[each.name] = processor.run_to_end(progress)
    if as_json:
        json_out(
            {name: {**found.rows, "late": found.late, "by_rule": found.by_rule} for name, found in results.items()}
        )
        return 0
    header = ("stream", "events", "rows", "quarantined", "filtered", "late")
    lines = [(n, r.rows_in, r.rows_out, r.quarantined, r.filtered, r.late) for n, r in results.items()]
    out(table(header, lines, header[1:]))
    return 0


def _process(
    made: Stream,
    groups: list[FeatureGroup],
    settings: Settings,
    metrics: MetricsCollector,
    stop: threading.Event,
    failures: list[Exception],
) -> None:
    """One stream, until `stop`; a store that can't be reached for a while is waited for."""
    teller = _Teller(made.name)
    while not stop.is_set():
        try:
            with Workspace.open(settings) as workspace:
                keeps = _feeds(made, workspace, groups)
                with StreamProcessor(made, workspace, metrics=metrics, keeps=keeps) as processor:
                    processor.run(stop, teller)
        except (ConfigError, SchemaError, MissingExtraError) as error:  # no waiting helps
            failures.append(error)
            stop.set()
        except NoriaError as error:
            say(f"{made.name}: {error}\n  trying again in 5 s; nothing is lost")
            stop.wait(5.0)


def _feeds(stream: Stream, workspace: Workspace, groups: list[FeatureGroup]) -> list[Feed]:
    """What the stream keeps up of the system's feature groups, and for live models of their earlier definitions."""
    hold_live(workspace)
    return feeds(stream, workspace, [group for group in groups if group.source.name == stream.name])


class _Teller:
    """Says every few seconds what has been done, if anything has."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._told, self._events = time.monotonic(), 0

    def __call__(self, result: StreamResult) -> None:
        now = time.monotonic()
        if now - self._told < _TELL_SECONDS:
            return
        new = result.rows_in - self._events
        if new:
            rate = new / (now - self._told)
            late = f", {result.late:,} late" if result.late else ""
            say(
                f"{to_iso(SystemClock().now())[:19]}  {self._name}: {result.rows_in:,} events, {rate:,.0f}/s, "
                f"{result.quarantined:,} quarantined{late}"
            )
        self._told, self._events = now, result.rows_in


class _metrics_server:  # noqa: N801 - used as a `with` word
    """Prometheus' text at a port of loopback; nothing if no port is given."""

    def __init__(self, port: int | None, metrics: MetricsCollector) -> None:
        self._server: ThreadingHTTPServer | None = None
        if port is None:
            return

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = metrics.exposition().encode()
                self.send_response(200)
                self.send_header("Content-Type", TEXT)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except (OSError, OverflowError) as error:  # a port beyond 65535 is an overflow
            raise ConfigError(
                f"can't listen on 127.0.0.1:{port}: {error}",
                hint="choose another --metrics-port: 0 (any free one) to 65535",
            ) from error

    def __enter__(self) -> None:
        if self._server is not None:
            threading.Thread(target=self._server.serve_forever, daemon=True).start()
            say(f"metrics: http://127.0.0.1:{self._server.server_address[1]}/metrics")

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def send(options: Namespace) -> int:
    """Append JSON lines to a stream's topic."""
    made = _named(_streams(load_system(options.project)), options.stream)
    spec = StreamSpec(made.name, made.topic_name, made.partitions, made.schema.to_dict(), made.key)
    intake, sent = Intake([spec]), 0
    settings = Settings.load(options.project)
    try:
        stream = sys.stdin.buffer if options.file == "-" else open(options.file, "rb")  # noqa: PTH123, SIM115
    except OSError as error:
        raise ConfigError(f"{options.file} can't be read: {error}") from error
    with stream, Workspace.open(settings) as workspace:
        log = workspace.log
        if spec.topic not in log.topics():
            log.create(spec.topic, spec.partitions)
        for numbers, lines in _numbered(stream):
            try:
                keys = intake.keys(spec, lines, [f"line {number}" for number in numbers])
            except RequestError as error:
                raise ConfigError(
                    f"{options.file}, {error.message}; {sent:,} events were sent, the last of them from before line "
                    f"{numbers[0]}",
                    hint=error.hint,
                ) from error
            sent += log.append(spec.topic, lines, keys)
    say(f"{sent:,} events sent to {made.topic_name}")
    return 0


def _numbered(stream: BinaryIO) -> Iterator[tuple[list[int], list[bytes]]]:
    """Lines that aren't blank, with their numbers in the file, some at a time."""
    full = ((number, line.strip()) for number, line in enumerate(stream, 1) if line.strip())
    while some := list(itertools.islice(full, _SEND)):
        yield [number for number, _ in some], [line for _, line in some]


def tail(options: Namespace) -> int:
    """Print the newest events of a stream's topic, and those that come if asked to."""
    made = _named(_streams(load_system(options.project)), options.stream)
    with Workspace.open(Settings.load(options.project)) as workspace:
        log, topic = workspace.log, made.topic_name
        if topic not in log.topics():
            say(f"topic {topic} has no events yet")
            return 0
        places = {}
        for partition, (first, end) in log.bounds(topic).items():
            places[partition] = max(first, end - options.limit)
        while True:
            if not _print_new(log, topic, places) and not options.follow:
                return 0
            if options.follow:
                time.sleep(0.1)


def _print_new(log: EventLog, topic: str, places: dict[int, int]) -> int:
    shown = 0
    for partition in sorted(places):
        events = log.read(topic, partition, places[partition], 1_000)
        for offset, value in zip(events.offsets.tolist(), events.values, strict=True):
            out(f"{partition}:{offset}  {value.decode('utf-8', 'replace')}")
        if len(events):
            places[partition] = events.next_offset
            shown += len(events)
    sys.stdout.flush()
    return shown


def _streams(system: System) -> dict[str, Stream]:
    return {part.name: part for part in system.components if isinstance(part, Stream)}


def _refuse_groups(groups: list[FeatureGroup], names: list[str]) -> None:
    for group in groups:
        if group.name in names:
            source = group.source.name
            is_stream = isinstance(group.source, Stream)
            what = f"is kept up with its stream {source!r}" if is_stream else f"reads {source!r}, which is no stream"
            how = f"noria stream {source}" if is_stream else f"noria run {group.name} computes it"
            raise ConfigError(f"{group.name!r} is a feature group: it {what}", hint=how, field="stream")


def _named(streams: dict[str, Stream], name: str) -> Stream:
    if not streams:
        raise ConfigError("the project has no stream", hint="add one to system.py: nr.Stream(name, schema={…})")
    if name not in streams:
        raise ConfigError(f"there is no stream {name!r}", hint=allowed(streams, name), field="stream")
    return streams[name]
