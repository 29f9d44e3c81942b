"""The features are looked up by entity, then predicted with: noria from LMDB, others from Feast."""

from __future__ import annotations

import json

from benchmarks.serving.contestant import ASKED, Contestant
from benchmarks.serving.environments import PEERS, peer
from benchmarks.serving.example import FEW, USERS, Example
from benchmarks.serving.one_row import noria


def contestants(example: Example) -> tuple[Contestant, list[Contestant]]:
    """noria, and the others."""
    users = [USERS // 2 + n for n in range(ASKED)]
    bodies = [json.dumps({"entities": [{"user": user}]}).encode() for user in users]
    right = example.scores("looked-up", example.newest[users])
    feast, app = peer("feast"), peer("fastapi")
    folder, names = example.file("feast"), example.file(f"names-{FEW}.json")
    why = feast.why or feast.call("feast_repo.py", folder, example.project / "events.parquet", names)
    server = (feast.program("feast"), "-c", folder, "serve", "-h", "127.0.0.1", "-p", "{port}",
              "--no-access-log", "--workers", "1", "--max-requests", "1000000000")  # fmt: skip
    script, model = str(PEERS / "fastapi_app.py"), example.file("looked-up.joblib")
    return noria(example, "looked-up", bodies, right), [
        Contestant(
            "FastAPI asks Feast's server, SQLite",
            (str(app.python), script, "feast", model, names, "{port}", "{helper}"),
            "/predict",
            bodies,
            right,
            helpers=[server],
            why=why or app.why,
        ),
        Contestant(
            "FastAPI with Feast in its process, SQLite",
            (str(feast.python), script, "feast-in-process", model, names, "{port}", folder),
            "/predict",
            bodies,
            right,
            why=why,
        ),
    ]
