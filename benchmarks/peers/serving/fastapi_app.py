"""A FastAPI app as its documentation would have it: `sklearn|onnx|lightgbm|feast|feast-in-process MODEL NAMES PORT [FEAST]`.

`NAMES` is a file with the features' names; `FEAST` is the port of Feast's feature server, or the folder of its
repository.
"""

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, create_model

kind, model, names, port, *feast = sys.argv[1:]
NAMES: list[str] = json.loads(Path(names).read_text())
Instance: Any = create_model("Instance", **dict.fromkeys(NAMES, (float, ...)))
FEATURES = [f"g:{name}" for name in NAMES]


class Instances(BaseModel):
    instances: list[Instance]


class User(BaseModel):
    user: int


class Entities(BaseModel):
    entities: list[User]


class Answer(BaseModel):
    predictions: list[bool]
    scores: list[float]


def scorer() -> Callable[[Any], Any]:
    """From a matrix to the probabilities of the second class."""
    if kind == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        given, wanted = session.get_inputs()[0].name, [session.get_outputs()[1].name]
        return lambda matrix: session.run(wanted, {given: matrix.astype(np.float32)})[0][:, 1]
    if kind == "lightgbm":
        import lightgbm

        booster = lightgbm.Booster(model_file=model)
        return lambda matrix: booster.predict(matrix, num_threads=1)
    import joblib

    estimator = joblib.load(model)
    return lambda matrix: estimator.predict_proba(matrix)[:, 1]


score = scorer()
client: Any = None


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    global client
    if kind == "feast":
        import aiohttp

        async with aiohttp.ClientSession(f"http://127.0.0.1:{feast[0]}") as client:
            yield
        return
    if kind == "feast-in-process":
        from feast import FeatureStore

        client = FeatureStore(feast[0])
    yield


app = FastAPI(lifespan=lifespan)


def answer(rows: list[Any]) -> Answer:
    scores = score(np.array(rows, dtype=np.float64)).tolist()
    return Answer(predictions=[value > 0.5 for value in scores], scores=scores)


async def predict(request: Instances) -> Answer:
    return answer([list(vars(row).values()) for row in request.instances])


async def predict_looked_up(request: Entities) -> Answer:
    users = [entity.user for entity in request.entities]
    if kind == "feast":
        asked = {"features": FEATURES, "entities": {"user": users}}
        async with client.post("/get-online-features", json=asked) as response:
            found = await response.json()
        columns = dict(zip(found["metadata"]["feature_names"], (r["values"] for r in found["results"]), strict=True))
    else:
        columns = client.get_online_features(FEATURES, [{"user": user} for user in users]).to_dict()
    return answer(list(zip(*(columns[name] for name in NAMES), strict=True)))


app.post("/predict")(predict_looked_up if feast else predict)
uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="warning", access_log=False)
