"""One row for a logistic regression: noria, the servers that others use, and the ceiling."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving.contestant import Contestant
from benchmarks.serving.environments import PEERS, Peer, peer
from benchmarks.serving.example import Example, arrays, named, tensors

BATCH = 32
NORIA, BARE = "noria", "bare protocol"
ONE_BY_ONE, BATCHED = "", f", batches of up to {BATCH}"


def noria(example: Example, model: str, bodies: Sequence[bytes], expected: Sequence[Sequence[float]]) -> Contestant:
    """One server process of noria's, without HAProxy."""
    words = (sys.executable, "-m", "noria.serving", "--project", str(example.project), "--port", "{port}", model)
    return Contestant(NORIA, words, "/predict", bodies, expected)


def fastapi(
    example: Example, name: str, kind: str, model: str, bodies: Sequence[bytes], expected: Sequence[Sequence[float]]
) -> Contestant:
    """A FastAPI app on uvicorn."""
    where, count = peer("fastapi"), len(json.loads(bodies[0])["instances"][0])
    names = example.file(f"names-{count}.json")
    words = (str(where.python), str(PEERS / "fastapi_app.py"), kind, example.file(model), names, "{port}")
    return Contestant(name, words, "/predict", bodies, expected, why=where.why)


def contestants(example: Example) -> tuple[Contestant, list[Contestant]]:
    """noria, and the others."""
    rows, right = example.asked, example.scores("linear", example.asked)
    bodies = [named(row[None]) for row in rows]
    bare = (sys.executable, str(PEERS / "bare.py"), example.file("linear.json"), "{port}")
    others = [
        Contestant(BARE, bare, "/predict", bodies, right),
        fastapi(example, "FastAPI", "sklearn", "linear.joblib", bodies, right),
    ]
    model = example.file("linear.joblib")
    for batch, label in ((1, ONE_BY_ONE), (BATCH, BATCHED)):
        others += [
            _mosec(model, batch, label, arrays("rows", rows), right),
            _ray(example, batch, label, arrays("rows", rows), right),
            _mlserver(example, batch, label, tensors(rows), right),
            _litserve(model, batch, label, arrays("rows", rows), right),
            _bentoml(model, batch, label, arrays("rows", rows), right),
        ]
    others += [_kserve(model, arrays("instances", rows), right), _mlflow(example, model)]
    return noria(example, "linear", bodies, right), sorted(others, key=lambda one: (one.name != BARE, one.name.lower()))


Right = Sequence[Sequence[float]]


def _mosec(model: str, batch: int, label: str, bodies: list[bytes], right: Right) -> Contestant:
    where = peer("mosec")
    words = (str(where.python), str(PEERS / "mosec_app.py"), "--address", "127.0.0.1", "--port", "{port}")
    environ = {"BATCH": str(batch), "MODEL": model}
    quiet = ("--log-level", "warning")
    return Contestant(f"mosec{label}", (*words, *quiet), "/inference", bodies, right, environ=environ, why=where.why)


def _ray(example: Example, batch: int, label: str, bodies: list[bytes], right: Right) -> Contestant:
    where = peer("ray")
    folder = example.file(f"r{batch}")  # short: a socket's path has 107 bytes at most
    model = example.file("linear.joblib")
    words = (str(where.python), str(PEERS / "ray_app.py"), model, str(batch), "{port}", folder)
    environ = {"RAY_USAGE_STATS_ENABLED": "0"}
    return Contestant(f"Ray Serve{label}", words, "/predict", bodies, right, environ=environ, why=where.why)


def _mlserver(example: Example, batch: int, label: str, bodies: list[bytes], right: Right) -> Contestant:
    where, folder = peer("mlserver"), Path(example.file(f"mlserver-{batch}"))
    folder.mkdir(exist_ok=True)
    # No pool of workers: on one core it would only copy requests between processes.
    server = {"debug": False, "parallel_workers": 0, "metrics_endpoint": None, "host": "127.0.0.1"}
    (folder / "settings.json").write_text(json.dumps(server))
    batching = {"max_batch_size": batch, "max_batch_time": 0.001} if batch > 1 else {}
    runtime = {"name": "linear", "implementation": "mlserver_sklearn.SKLearnModel", **batching}
    extra = {"predict_fn": "predict_proba"}
    settings = {**runtime, "parameters": {"uri": example.file("linear.joblib"), "extra": extra}}
    (folder / "model-settings.json").write_text(json.dumps(settings))
    return Contestant(
        f"MLServer{label}",
        (where.program("mlserver"), "start", str(folder)),
        "/v2/models/linear/infer",
        bodies,
        right,
        read=lambda answer: [answer["outputs"][0]["data"][1]],
        environ={"MLSERVER_HTTP_PORT": "{port}", "MLSERVER_GRPC_PORT": "{port2}", "MLSERVER_METRICS_PORT": "{port3}"},
        why=where.why,
    )


def _litserve(model: str, batch: int, label: str, bodies: list[bytes], right: Right) -> Contestant:
    where = peer("litserve")
    words = (str(where.python), str(PEERS / "litserve_app.py"), model, str(batch), "{port}")
    return Contestant(f"LitServe{label}", words, "/predict", bodies, right, why=where.why)


def _bentoml(model: str, batch: int, label: str, bodies: list[bytes], right: Right) -> Contestant:
    where = peer("bentoml")
    words = (where.program("bentoml"), "serve", "bentoml_app:Predict", "--host", "127.0.0.1", "--port", "{port}")
    environ = {"BATCH": str(batch), "MODEL": model, "BENTOML_DO_NOT_TRACK": "True"}
    return Contestant(
        f"BentoML{label}",
        words,
        "/predict",
        bodies,
        right,
        read=lambda answer: answer,
        environ=environ,
        folder=str(PEERS),
        why=where.why,
    )


def _kserve(model: str, bodies: list[bytes], right: Right) -> Contestant:
    where = peer("kserve")
    words = (str(where.python), str(PEERS / "kserve_app.py"), model, "{port}")
    path = "/v1/models/linear:predict"
    return Contestant("KServe", words, path, bodies, right, lambda answer: answer["predictions"], why=where.why)


def _mlflow(example: Example, model: str) -> Contestant:
    where, folder = peer("mlflow"), example.file("mlflow-model")
    # Its flavour for scikit-learn answers with classes.
    classes = example.estimator("linear").predict(example.asked)
    return Contestant(
        "MLflow",
        (
            where.program("mlflow"),
            "models",
            "serve",
            "-m",
            folder,
            "-h",
            "127.0.0.1",
            "-p",
            "{port}",
            "--env-manager",
            "local",
            "--workers",
            "1",
        ),
        "/invocations",
        arrays("inputs", example.asked),
        [[float(value)] for value in classes],
        read=lambda answer: answer["predictions"],
        environ={"PATH": f"{Path(where.program('x')).parent}:/usr/bin:/bin", "MLFLOW_DISABLE_TELEMETRY": "true"},
        why=where.why or _prepared(where, model, folder),
    )


def _prepared(where: Peer, model: str, folder: str) -> str:
    return where.call("mlflow_model.py", model, folder)
