"""One server process: `python -m noria.serving --project DIR --port PORT [--features] MODEL …`.

It needs no `system.py`: a model version carries all that it takes to answer, a registered feature group too, and
`noria serve` has written down what it has to know of streams. It looks at the registry every second and swaps a new
champion in between two requests.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from noria.core import NoriaError, Settings
from noria.pipelines.intake import published
from noria.registry import ModelRegistry
from noria.serving.access import Access, following
from noria.serving.events import EventDoor
from noria.serving.feature_door import FeatureDoor
from noria.serving.key_records import ApiKeys
from noria.serving.keys import check_bind, check_plain, is_loopback, parse_keys
from noria.serving.loading import load_servable
from noria.serving.prediction_log import PredictionLog
from noria.serving.server import Limits, ModelServer
from noria.storage import Workspace, open_records
from noria.telemetry import MetricsCollector, MLLogger

FOLLOW_SECONDS = 1.0


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser("noria.serving", description="One model server.")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--project", default=".")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--replica", default="0")
    parser.add_argument("--features", action="store_true", help="answer POST /features")
    parser.add_argument("--replicas", type=int, default=1, help="how many servers share the rates of the API keys")
    parser.add_argument("--demand-keys", action="store_true", help="refuse requests without an API key")
    options = parser.parse_args()
    try:
        return _serve(options)
    except NoriaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1


def _serve(options: argparse.Namespace) -> int:
    # Replicas are the parallelism: threads of one small prediction would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    settings = Settings.load(options.project)
    logger = MLLogger(settings.state_dir / "logs" / f"server-{options.replica}.jsonl")
    with Workspace.open(settings) as workspace, _keys(options, settings, logger) as keys:
        registry = ModelRegistry.of(workspace)
        servables = [load_servable(registry.get(model), workspace) for model in options.models]
        metrics, streams = MetricsCollector(), published(settings)
        predictions = PredictionLog.of(settings, f"server-{options.replica}", metrics, workspace.clock)
        server = ModelServer(
            servables,
            metrics=metrics,
            logger=logger,
            keys=keys,
            limits=Limits(max_body_bytes=settings.serve.max_body_bytes),
            events=EventDoor(streams, workspace, metrics) if streams else None,
            features=FeatureDoor(workspace, metrics, logger, predictions) if options.features else None,
            predictions=predictions,
        )
        gc.collect()
        gc.freeze()  # models and libraries live as long as the process: the collector need not look at them again
        follower = _Follower(server, registry, workspace, logger)
        server.run(options.host, options.port, background=[follower.follow])
        if predictions is not None:
            predictions.close()
    logger.close()
    return 0


@contextmanager
def _keys(options: argparse.Namespace, settings: Settings, logger: MLLogger) -> Iterator[Access]:
    """The API keys, followed over a connection of their own, so that nothing else holds a revocation up."""
    with closing(open_records(settings.storage.records, settings.root)) as records:
        check_bind(options.host, settings.serve.api_keys, ApiKeys(records))
        check_plain(options.host, settings.serve.tls)
        with following(
            Access(replicas=options.replicas),
            records,
            digests=parse_keys(settings.serve.api_keys),
            demanded=options.demand_keys or not is_loopback(options.host),
            on_error=lambda error: logger.log_error(error, part="API keys"),
        ) as access:
            yield access


class _Follower:
    """Keeps a server on the registry's champions."""

    def __init__(self, server: ModelServer, registry: ModelRegistry, workspace: Workspace, logger: MLLogger) -> None:
        self._server = server
        self._registry = registry
        self._workspace = workspace
        self._logger = logger

    async def follow(self) -> None:
        """Look for new champions until cancelled; a registry that can't be read leaves the models as they are."""
        while True:
            await asyncio.sleep(FOLLOW_SECONDS)
            for servable in list(self._server.servables):
                try:
                    await self._update(servable.model, servable.version)
                except Exception as error:
                    self._logger.log_error(error, model=servable.model)

    async def _update(self, model: str, version: int) -> None:
        champion = await asyncio.to_thread(self._registry.get, model)
        if champion.version == version:
            return
        fresh = await asyncio.to_thread(load_servable, champion, self._workspace)
        await asyncio.to_thread(fresh.warm_up)
        self._server.swap(fresh)
        self._logger.log("swap", model=model, before=version, after=champion.version)


if __name__ == "__main__":
    sys.exit(main())
