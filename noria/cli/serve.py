"""`noria serve`: the system's servers behind the load balancer."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from noria.cli.project import load_system
from noria.cli.show import out, say
from noria.core import ConfigError, Settings, SystemClock, to_iso
from noria.gateway import Supervisor
from noria.registry import ModelRegistry
from noria.serving.keys import check_bind
from noria.storage import Workspace
from noria.system import System


def serve(options: Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    system = load_system(options.project)
    settings = Settings.load(options.project)
    changed = {name: value for name in ("host", "port", "replicas") if (value := getattr(options, name)) is not None}
    settings = replace(settings, serve=replace(settings.serve, **changed))
    with supervisor(system, settings) as running:
        out(f"serving {', '.join(served_models(system))} on {running.url} with {settings.serve.replicas} servers")
        out(f"  try: curl {running.url}/openapi.json    stop: Ctrl-C")
        sys.stdout.flush()
        running.wait()
    say("stopped")
    return 0


def served_models(system: System) -> tuple[str, ...]:
    """The models that the system's servers answer with, as its graph says.

    Raises:
        ConfigError: the system has none.
    """
    parts = [part for part in system.components if part.kind == "server"]
    if not parts:
        raise ConfigError(
            f"system {system.name!r} has no model to serve",
            hint="add a RecommenderSystem or a ModelTrainingPipeline to system.py",
        )
    return parts[0].dependencies


def supervisor(system: System, settings: Settings) -> Supervisor:
    """The servers and the load balancer, not started yet.

    Raises:
        NotFoundError: a model has no champion yet.
        ConfigError: the address is not loopback and there are no API keys.
    """
    models = served_models(system)
    check_bind(settings.serve.host, settings.serve.api_keys)
    with Workspace.open(settings) as workspace:
        registry = ModelRegistry.of(workspace)
        for model in models:
            registry.get(model)

    def command(index: int, port: int) -> list[str]:
        words = [sys.executable, "-m", "noria.serving", "--project", str(settings.root), "--port", str(port)]
        return [*words, "--replica", str(index), *models]

    return Supervisor(
        command,
        replicas=settings.serve.replicas,
        host=settings.serve.host,
        port=settings.serve.port,
        run_dir=Path(settings.state_dir) / "serve",
        on_event=_tell,
    )


def _tell(event: str, **fields: object) -> None:
    """A line for each thing that happens to the servers; details are in their logs."""
    who = fields.get("replica", "the load balancer")
    cause = str(fields.get("cause", "")).partition("; the last lines")[0]
    say(f"{to_iso(SystemClock().now())[:19]}  {who}: {event.partition('_')[2]}{f', {cause}' if cause else ''}")
