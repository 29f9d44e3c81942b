"""The follower: keeps a server on what the registry says, champions and deployments, and tells the judge what happens.

It looks twice a second. A version that is new here is loaded, warmed up and checked beside the requests, and takes over
between two of them; what goes wrong with that leaves everything as it was, and is logged and tried again later. While
the registry can't be read, the server goes on with what it has.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Mapping
from typing import Any

import msgspec

from noria.core import Clock, ConfigError, NoriaError, RequestError
from noria.registry import Deployment, Deployments, ModelRegistry
from noria.serving.exposures import TALLIES, server_key, tally_key
from noria.serving.loading import load_servable
from noria.serving.servable import Servable
from noria.serving.served import Served
from noria.serving.server import ModelServer
from noria.serving.trial import Trial
from noria.storage import Put, Workspace
from noria.telemetry import MetricsCollector, MLLogger

FOLLOW_SECONDS = 0.5
AGAIN_SECONDS = 10.0
"""After so long a version that couldn't be loaded is tried again."""


class Follower:
    """Follows for one server.

    Args:
        server: what follows.
        workspace: where the registry is.
        logger: told of every change and error.
        metrics: has the number of versions that couldn't be taken over.
        pins: versions that stay loaded whatever the registry says, by model.
        name: the server's, as people know it.
    """

    def __init__(
        self,
        server: ModelServer,
        workspace: Workspace,
        logger: MLLogger,
        metrics: MetricsCollector,
        pins: Mapping[str, frozenset[int]] | None = None,
        name: str = "server",
    ) -> None:
        self._server = server
        self._workspace = workspace
        self._registry = ModelRegistry.of(workspace)
        self._deployments = Deployments.of(workspace)
        self._logger = logger
        self._refused = metrics.counter("noria_versions_refused", "Times that a version couldn't be taken over.")
        self._pins = pins or {}
        self._again: dict[str, tuple[float, str]] = {}
        self._name = server_key(f"{name}@{socket.gethostname()}", secrets.token_hex(4))
        self._clock: Clock = workspace.clock
        self._told: dict[str, tuple[str, bytes]] = {}

    async def follow(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            for served in list(self._server.models.values()):
                try:
                    await self.look(served)
                    await self._tell(self._server.models[served.name])
                except Exception as error:
                    self._logger.log_error(error, model=served.name)

    async def look(self, served: Served) -> None:
        """Bring one model to what the registry says.

        Raises:
            NoriaError: the registry can't be read.
        """
        champion, deployment = await asyncio.to_thread(self._wanted, served.name)
        running = deployment if deployment is not None and not deployment.over else None
        numbers = {champion, *self._pins.get(served.name, ()), *(running.versions if running else ())}
        if champion == served.champion and deployment == served.deployment and numbers <= served.versions.keys():
            return
        versions, errors = await self._loaded(served, numbers)
        if champion not in versions:
            champion = served.champion
            versions[champion] = served.versions[champion]
        if running is not None and running.control.version not in versions:
            running = None
        if champion == served.champion and running == served.deployment and versions == served.versions:
            _explain(served.trial, errors)
            return
        await self._tell(served)
        self._server.deploy(served.name, versions, champion, running)
        _explain(self._server.models[served.name].trial, errors)
        self._logger.log(
            "deploy", model=served.name, champion=champion, deployment=running.to_dict() if running else None,
            before=served.champion, errors=errors,
        )  # fmt: skip

    def _wanted(self, model: str) -> tuple[int, Deployment | None]:
        deployment = self._deployments.get(model)
        champion = self._registry.champion(model)
        return champion, None if deployment is None or deployment.over else deployment

    async def _loaded(self, served: Served, numbers: set[int]) -> tuple[dict[int, Servable], dict[int, str]]:
        """The servables of these versions; and why those that are missing couldn't be loaded."""
        versions: dict[int, Servable] = {}
        errors: dict[int, str] = {}
        loop = asyncio.get_running_loop()
        for number in sorted(numbers):
            known = served.versions.get(number)
            label = f"{served.name}@{number}"
            until, why = self._again.get(label, (0.0, ""))
            if known is not None:
                versions[number] = known
            elif loop.time() < until:
                errors[number] = why
            else:
                try:
                    versions[number] = await asyncio.to_thread(self._load, label, served.control)
                    self._again.pop(label, None)
                except Exception as error:
                    self._refused.inc()
                    self._logger.log_error(error, model=label)
                    errors[number] = str(error) or type(error).__name__
                    self._again[label] = (loop.time() + AGAIN_SECONDS, errors[number])
        return versions, errors

    def _load(self, label: str, control: Servable) -> Servable:
        """A version that is ready to answer what the present one answers.

        Raises:
            ConfigError: it isn't.
        """
        fresh = load_servable(self._registry.get(label), self._workspace)
        check_understands(fresh, control)
        self._server.warm_up(fresh)
        return fresh

    # --- what the judge is told

    async def _tell(self, served: Served) -> None:
        """Write the totals of a deployment down, if there is anything new."""
        trial = served.trial
        if trial is None:
            return
        key = tally_key(served.name, trial.deployment.number, self._name)
        data = _document(trial)
        encoded = msgspec.json.encode(data)
        if self._told.get(served.name) == (key, encoded):
            return
        await asyncio.to_thread(self._workspace.records.commit, Put(TALLIES, key, {**data, "at": self._clock.now()}))
        self._told[served.name] = key, encoded


def _explain(trial: Trial | None, errors: Mapping[int, str]) -> None:
    """Say why variants aren't loaded here."""
    if trial is not None:
        tried = trial.deployment.tried
        trial.errors = {variant.name: errors[variant.version] for variant in tried if variant.version in errors}


def _document(trial: Trial) -> dict[str, Any]:
    return {"variants": msgspec.to_builtins(trial.tallies), "failed": trial.errors, "step": trial.deployment.step}


def check_understands(fresh: Servable, present: Servable) -> None:
    """Refuse a version that doesn't understand what clients send to the present one.

    Raises:
        ConfigError: it offers less, or can't read the present one's example.
    """
    label = f"{fresh.model}@{fresh.version}"
    missing = set(present.operations) - set(fresh.operations)
    if missing:
        raise ConfigError(
            f"{label} doesn't offer {', '.join(sorted(missing))}, which version {present.version} does",
            hint="register it as a model of another name",
        )
    for operation in present.operations:
        example = present.describe(operation).get("example")
        if not example:
            continue
        try:
            fresh.decode(operation, msgspec.json.encode(example))
        except RequestError as error:
            raise ConfigError(
                f"{label} doesn't understand what clients send to version {present.version}: {error.message}",
                hint="give it the same inputs, or register it as a model of another name; a restart of the server "
                "takes it as it is",
            ) from error
        except NoriaError:
            continue
