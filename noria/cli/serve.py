"""`noria serve`: the system's servers behind the load balancer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from noria.cli.admin import console
from noria.cli.project import load_system
from noria.cli.show import out, say
from noria.cli.tls import certificate
from noria.core import BusyError, ConfigError, MissingExtraError, Settings, SystemClock, to_iso
from noria.gateway import ProxyOptions, ScaleLimits, Supervisor
from noria.gateway.child import LAUNCHER
from noria.gateway.control import reach
from noria.gateway.errors import NoGatewayError
from noria.gateway.handover import Inheritance, take_over
from noria.monitoring.tending import tending
from noria.pipelines import Stream
from noria.pipelines.intake import publish
from noria.registry import ModelRegistry
from noria.serving.key_records import ApiKeys
from noria.serving.keys import check_bind, is_loopback
from noria.storage import Workspace
from noria.system import System
from noria.system.services import FEATURES_KIND


def serve(options: Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    system = load_system(options.project)
    settings = Settings.load(options.project)
    changed = {name: value for name in ("host", "port", "replicas") if (value := getattr(options, name)) is not None}
    settings = replace(settings, serve=replace(settings.serve, **changed))
    streams = [part for part in system.components if isinstance(part, Stream)]
    if options.with_stream and not streams:
        raise ConfigError(
            f"system {system.name!r} has no stream", hint="add a Stream to system.py, or leave --with-stream out"
        )
    publish(streams, settings)
    given = _others(settings, options.take_over)
    if given is not None:
        settings = at_its_address(settings, given.host)
    with ExitStack() as stack:
        running = stack.enter_context(supervisor(system, settings, given))
        stack.enter_context(tending(settings, _tell_done))
        administered = stack.enter_context(
            console(settings, run_directory(settings), _tell_done, inherits=given is not None)
        )
        if options.with_stream:
            stack.enter_context(_processor(settings))
        models, groups = served(system)
        served_parts = [*models, *(["features"] if groups else [])]
        out(f"serving {', '.join(served_parts)} on {running.url}{_where(settings)} with {_count(settings)}")
        if groups:
            out(f"  features: POST {running.url}/features for {', '.join(groups)}")
        if streams:
            out(f"  events: POST {running.url}/events for {', '.join(part.name for part in streams)}")
        if running.grpc_address:
            tls = " with TLS" if settings.serve.certificate else ""
            out(f"  gRPC: Open Inference Protocol on {running.grpc_address}{tls}")
        if administered:
            out(f"  console: {administered}")
        out(f"  try: curl {running.url}/openapi.json    stop: Ctrl-C")
        sys.stdout.flush()
        running.wait()
    _tell_done("stopped")
    return 0


def _count(settings: Settings) -> str:
    least, most = settings.serve.replicas, settings.serve.replicas_max
    others = sum(bool(address.strip()) for address in settings.serve.servers.split(","))
    count = f"{least} to {most}" if most > least else str(least)
    return f"{count} server{'' if count == '1' else 's'}{f' and {others} elsewhere' if others else ''}"


def _where(settings: Settings) -> str:
    """What the URL doesn't tell, for it has an address that this machine can ask."""
    host = settings.serve.host
    return f" (on every address, {host})" if host in ("0.0.0.0", "::", "") else ""


def _others(settings: Settings, wanted: bool) -> Inheritance | None:
    """What the `noria serve` gives that runs already; none where nobody does, nor is wanted.

    Raises:
        BusyError: one runs, and its place isn't wanted.
        NoGatewayError: none does.
    """
    serve, run_dir = settings.serve, run_directory(settings)
    try:
        if wanted:
            return take_over(run_dir, serve.port, serve.grpc_port or None)
        reach(run_dir).close()
    except NoGatewayError as error:
        if wanted:
            raise not_running(settings) from error
        return None
    raise BusyError(
        f"noria serve runs in {settings.root} already",
        hint="noria servers shows it; noria serve --take-over takes its place, and no request fails",
    )


def not_running(settings: Settings) -> NoGatewayError:
    """The error that no `noria serve` is there."""
    return NoGatewayError(f"noria serve isn't running in {settings.root}", hint="start it there: noria serve")


def at_its_address(settings: Settings, host: str) -> Settings:
    """The settings with the address of the socket that is taken over: keys and HTTPS are demanded by that."""
    wanted = settings.serve.host
    if wanted != host and not (is_loopback(wanted) and is_loopback(host)):
        say(f"the address stays {host}, not {wanted}: another one needs a stop and a start")
    return replace(settings, serve=replace(settings.serve, host=host))


@contextmanager
def _processor(settings: Settings) -> Iterator[None]:
    """`noria stream` in a process of its own, started again when it ends, until the block does."""
    stop = threading.Event()
    log = settings.state_dir / "logs" / "stream.log"
    log.parent.mkdir(parents=True, exist_ok=True)

    def keep_running() -> None:
        command = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid())]
        command += [sys.executable, "-m", "noria", "stream", "--project", str(settings.root)]
        while not stop.is_set():
            with log.open("ab") as output:
                # The launcher has the kernel kill it when this thread ends, however it ends.
                child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
            while child.poll() is None and not stop.wait(0.2):
                pass
            if child.poll() is None:
                child.terminate()
                child.wait(20)
            elif not stop.is_set():
                say(f"the stream processor has ended with {child.returncode}, see {log}; it is started again")
                stop.wait(2.0)

    thread = threading.Thread(target=keep_running, name="noria-stream")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def served(system: System) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The models that the system's servers answer with, and the feature groups that they read, as its graph says.

    Raises:
        ConfigError: the system has neither.
    """
    parts = [part for part in system.components if part.kind == "server"]
    if not parts:
        raise ConfigError(
            f"system {system.name!r} has no model to serve, and no features",
            hint="add a RecommenderSystem, a ModelTrainingPipeline or a FeatureGroup to system.py",
        )
    groups = tuple(name for name in parts[0].dependencies if system[name].kind == FEATURES_KIND)
    return tuple(name for name in parts[0].dependencies if name not in groups), groups


def supervisor(system: System, settings: Settings, given: Inheritance | None = None) -> Supervisor:
    """The servers and the load balancer, not started yet; in the place of those that run where these have `given` it.

    Raises:
        NotFoundError: a model has no champion yet.
        ConfigError: the address is not loopback, and there are no API keys or there is no certificate.
        MissingExtraError: gRPC is to be spoken, and grpcio isn't installed.
    """
    models, groups = served(system)
    try:
        options = _checked(settings, models)
    except BaseException:
        if given is not None:
            given.decline()
        raise
    keys = ["--replicas", str(settings.serve.replicas)]
    if not is_loopback(settings.serve.host):
        keys.append("--demand-keys")  # the servers themselves listen on loopback, and couldn't tell

    def command(index: int, port: int, *grpc_port: int) -> list[str]:
        words = [sys.executable, "-m", "noria.serving", "--project", str(settings.root), "--port", str(port)]
        for each in grpc_port:
            words += ["--grpc-port", str(each)]
        return [*words, "--replica", str(index), *keys, *(["--features"] if groups else []), *models]

    chosen = settings.serve
    return Supervisor(
        command,
        replicas=chosen.replicas,
        host=chosen.host,
        port=chosen.port,
        grpc_port=chosen.grpc_port or None,
        run_dir=run_directory(settings),
        servers=[address.strip() for address in chosen.servers.split(",") if address.strip()],
        scaling=ScaleLimits(chosen.replicas, chosen.replicas_max) if chosen.replicas_max else None,
        options=options,
        take_over=given or False,
        on_event=_tell,
    )


def _checked(settings: Settings, models: Iterable[str]) -> ProxyOptions:
    """What HAProxy shall do, if these models may be served like that."""
    if settings.serve.grpc_port and find_spec("grpc") is None:
        raise MissingExtraError("grpcio", "grpc", "serve.grpc_port")
    with Workspace.open(settings) as workspace:
        check_bind(settings.serve.host, settings.serve.api_keys, ApiKeys(workspace.records, workspace.clock))
        registry = ModelRegistry.of(workspace)
        for model in models:
            registry.get(model)
    return ProxyOptions(policy=settings.serve.balance, certificate=certificate(settings))


def run_directory(settings: Settings) -> Path:
    """Where the gateway of a project keeps its logs and sockets."""
    return settings.state_dir / "serve"


def _tell_done(what: str) -> None:
    say(f"{to_iso(SystemClock().now())[:19]}  {what}")


def _tell(event: str, **fields: object) -> None:
    """A line for each thing that happens to the servers; details are in their logs."""
    say(f"{to_iso(SystemClock().now())[:19]}  {event_line(event, fields)}")


def event_line(event: str, fields: Mapping[str, object]) -> str:
    """What has happened, to whom and why, in one line."""
    who = fields.get("replica") or fields.get("server")
    who = who or ("noria serve" if event.startswith("gateway_") else "the load balancer")
    cause = str(fields.get("cause", "")).partition("; the last lines")[0]
    return f"{who}: {event.partition('_')[2].replace('_', ' ')}{f', {cause}' if cause else ''}"
