"""One server process: `python -m noria.serving --project DIR --port PORT [--features] MODEL …`.

It needs no `system.py`: a model version carries all that it takes to answer, a registered feature group too, and
`noria serve` has written down what it has to know of streams. It follows the registry's champions and deployments;
`MODEL@3` keeps version 3 loaded as well, to be asked by its number.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import msgspec

from noria.core import ConfigError, NoriaError, Settings
from noria.pipelines.intake import published
from noria.registry import ModelRegistry, parse_label
from noria.serving.access import Access, following
from noria.serving.events import EventDoor
from noria.serving.exposures import FOLDER
from noria.serving.feature_door import FeatureDoor
from noria.serving.follower import Follower
from noria.serving.key_records import ApiKeys
from noria.serving.keys import check_bind, check_plain, is_loopback, parse_keys
from noria.serving.line_log import LineLog
from noria.serving.loading import load_servable
from noria.serving.prediction_files import Segments
from noria.serving.prediction_log import PredictionLog
from noria.serving.server import Limits, ModelServer
from noria.storage import Workspace, open_records
from noria.telemetry import MetricsCollector, MLLogger, RequestTracer

if TYPE_CHECKING:
    from noria.serving.grpc_door import GrpcDoor


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser("noria.serving", description="One model server.")
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--project", default=".")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--grpc-port", type=int, help="speak the Open Inference Protocol over gRPC there")
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
    names, pins = _models(options.models)
    with Workspace.open(settings, for_serving=True) as workspace, _keys(options, settings, logger) as keys:
        registry = ModelRegistry.of(workspace)
        servables = [load_servable(registry.get(model), workspace) for model in names]
        metrics, streams = MetricsCollector(), published(settings)
        writer = f"server-{options.replica}"
        predictions = PredictionLog.of(settings, writer, metrics, workspace.clock)
        exposures = _exposures(settings, writer, metrics, workspace)
        tracer = RequestTracer.of(settings, writer, metrics, logger)
        server = ModelServer(
            servables,
            metrics=metrics,
            logger=logger,
            keys=keys,
            limits=Limits(max_body_bytes=settings.serve.max_body_bytes, max_wait_seconds=settings.serve.max_wait),
            events=EventDoor(streams, workspace, metrics) if streams else None,
            features=FeatureDoor(workspace, metrics, logger, predictions) if options.features else None,
            predictions=predictions,
            expose=exposures.put,
            access_log=settings.serve.access_log,
            tracer=tracer,
            grpc=None if options.grpc_port is None else _grpc_door(options.host, options.grpc_port),
        )
        gc.collect()
        gc.freeze()  # models and libraries live as long as the process: the collector need not look at them again
        # A thread with a slow model gives the loop its turn after 1 ms, not 5.
        sys.setswitchinterval(0.001)
        follower = Follower(server, workspace, logger, metrics, pins, f"replica-{options.replica}")
        server.run(options.host, options.port, background=[follower.follow])
        exposures.close()
        if predictions is not None:
            predictions.close()
        if tracer is not None:
            tracer.close()
    logger.close()
    return 0


def _grpc_door(host: str, port: int) -> GrpcDoor:
    """Where gRPC is spoken.

    Raises:
        MissingExtraError: grpcio isn't installed.
    """
    from noria.serving.grpc_door import GrpcDoor

    return GrpcDoor(host, port)


@contextmanager
def _keys(options: argparse.Namespace, settings: Settings, logger: MLLogger) -> Iterator[Access]:
    """The API keys, followed over a connection of their own, so that nothing else holds a revocation up."""
    with closing(open_records(settings.storage.records, settings.root, make=False)) as records:
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


def _models(labels: Sequence[str]) -> tuple[list[str], dict[str, frozenset[int]]]:
    """The models' names, and the versions of each that stay loaded besides.

    Raises:
        ConfigError: a version isn't named by its number.
    """
    pins: dict[str, frozenset[int]] = {}
    for label in labels:
        name, version = parse_label(label)
        if version is not None and not version.isdigit():
            raise ConfigError(f"{label!r} doesn't name a version", hint="write MODEL, or MODEL@NUMBER")
        pins[name] = pins.get(name, frozenset()) | ({int(version)} if version else frozenset())
    return list(pins), pins


def _exposures(settings: Settings, writer: str, metrics: MetricsCollector, workspace: Workspace) -> LineLog:
    """Where it is written who was answered by which variant."""
    segments = Segments(settings.state_dir / FOLDER, writer, settings.predictions.log_max_bytes, workspace.clock)
    written = metrics.counter("noria_exposures_written", "Answers of deployments' variants that were written down.")
    dropped = metrics.counter("noria_exposures_dropped", "Answers of variants that could not be written down.")
    return LineLog(segments, msgspec.json.encode, "the log of exposures", written, dropped, max_waiting=20_000)


if __name__ == "__main__":
    sys.exit(main())
