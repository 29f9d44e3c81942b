"""A FastAPI app as its documentation would have it, with the very model that noria serves."""

from __future__ import annotations

import os
import sys
from typing import Any

# As noria's servers do: with a thread for every core in each of two processes this model answers 15 requests/s.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, Field

from noria.core import Settings
from noria.registry import ModelRegistry
from noria.serving import load_servable
from noria.storage import Workspace

project, model, operation, port = sys.argv[1:]
workspace = Workspace.open(Settings.load(project))
servable = load_servable(ModelRegistry.of(workspace).get(model), workspace)
app = FastAPI()


class Recommend(BaseModel):
    user_id: int
    k: int = Field(default=10, ge=1, le=1000)


class Predict(BaseModel):
    instances: list[dict[str, Any]]


def answer(request: BaseModel) -> Any:
    decoded = servable.decode(operation, request.model_dump_json().encode())
    return msgspec.to_builtins(servable.answer(operation, [decoded])[0])


@app.get("/health/ready")
async def ready() -> dict[str, str]:
    return {"status": "ready"}


@app.post("/recommend")
async def recommend(request: Recommend) -> Any:
    return answer(request)


@app.post("/predict")
async def predict(request: Predict) -> Any:
    return answer(request)


servable.warm_up()
uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
