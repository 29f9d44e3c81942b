"""The foreign protocols over HTTP, with their own clients where they can be had."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from doubler import Doubler
from late_model import SCHEMA, servable
from tritonclient.http import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import noria as nr
from noria.registry import Deployment, Variant
from noria.serving import Access, KeyRing, ModelServer

MODEL = servable(SCHEMA, nr.Impute(), nr.Encode())
NEWER = servable(SCHEMA, nr.Encode())
NEWER.version = 4
COLUMNS = {
    "f": np.array([1.0, np.nan, -2.5]),
    "short": np.array([1.5, 2.5, 0.1], dtype="f4"),
    "n": np.array([1, 2, -3], dtype="i1"),
    "on": np.array([True, False, True]),
    "s": np.array(["a", "é", ""], dtype=object),
}
ROWS = [
    {name: None if value != value else value for name, value in zip(COLUMNS, row, strict=True)}
    for row in zip(*(column.tolist() for column in COLUMNS.values()), strict=True)
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ModelServer([MODEL, Doubler()])
    server.deploy("late", {3: MODEL, 4: NEWER}, champion=3)
    with server.running() as address:
        yield address


@pytest.fixture(scope="module")
def predictions(url: str) -> dict[str, Any]:
    return httpx.post(f"{url}/models/late/predict", json={"instances": ROWS}).raise_for_status().json()


# gevent's objects must not be collected by another thread than their own, as a server's may.
KEPT: list[InferenceServerClient] = []


def client_of(url: str) -> InferenceServerClient:
    KEPT.append(InferenceServerClient(url.removeprefix("http://")))
    return KEPT[-1]


@pytest.fixture(scope="module")
def triton(url: str) -> Iterator[InferenceServerClient]:
    client = client_of(url)
    yield client
    client.close()


def tensors(columns: dict[str, np.ndarray] = COLUMNS) -> list[InferInput]:
    return [
        InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)).set_data_from_numpy(values)
        for name, values in columns.items()
    ]


def test_triton_s_client_infers_in_its_default_mode(triton: InferenceServerClient, predictions: Any) -> None:
    result = triton.infer("late", tensors(), request_id="r1")
    assert result.as_numpy("predictions").tolist() == predictions["predictions"]
    assert result.as_numpy("scores").tolist() == predictions["scores"]
    assert result.get_response()["model_version"] == "3"
    newer = triton.infer("late", tensors(), model_version="4")
    assert newer.get_response()["model_version"] == "4"
    again = triton.async_infer("late", tensors()).get_result()
    assert again.as_numpy("scores").tolist() == predictions["scores"]


def test_triton_s_client_is_told_what_there_is(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("late")
    assert triton.is_model_ready("late", "4")
    assert not triton.is_model_ready("late", "5")
    assert not triton.is_model_ready("nobody")
    assert triton.get_server_metadata()["extensions"]
    assert triton.get_model_metadata("late")["versions"] == ["3", "4"]
    assert triton.get_model_metadata("late", "4")["versions"] == ["4"]
    index = triton.get_model_repository_index()
    assert {(entry["name"], entry["version"]) for entry in index} == {("late", "3"), ("late", "4"), ("doubler", "1")}
    before = triton.get_inference_statistics("late", "4")["model_stats"][0]["inference_count"]
    triton.infer("late", tensors(), model_version="4")
    (told,) = triton.get_inference_statistics("late", "4")["model_stats"]
    assert told["inference_count"] == before + 3
    assert told["inference_stats"]["success"]["ns"] > 0
    assert len(triton.get_inference_statistics()["model_stats"]) == 3


def test_loading_follows_the_registry(triton: InferenceServerClient) -> None:
    triton.load_model("late")
    triton.unload_model("nobody")
    with pytest.raises(InferenceServerException, match="follows the registry"):
        triton.load_model("nobody")
    with pytest.raises(InferenceServerException, match="follows the registry"):
        triton.unload_model("late")


@pytest.mark.parametrize(
    ("model", "version", "columns", "message"),
    [
        ("nobody", "", COLUMNS, "no model 'nobody'"),
        ("late", "9", COLUMNS, "version '9' of model 'late' is not loaded"),
        ("late", "", {"f": COLUMNS["f"]}, "'short' is missing"),
        ("late", "", {"short": COLUMNS["short"], "shop": COLUMNS["f"]}, "no input 'shop'"),
        ("late", "", {"short": np.array([1.0, np.nan])}, r"short\[1\] is missing"),
        ("doubler", "", COLUMNS, "rows of a table"),
    ],
)
def test_triton_s_client_reads_the_errors(
    triton: InferenceServerClient, model: str, version: str, columns: Any, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        triton.infer(model, tensors(columns), model_version=version)
    assert caught.value.status().startswith("4")


@pytest.mark.parametrize("path", ["/v2/nothing", "/v2/models/late/infer", "/v1/models/late:explain", "/v1/models/x"])
def test_errors_of_v1_and_v2_have_their_form(url: str, path: str) -> None:
    response = httpx.get(url + path)
    assert response.status_code in (404, 405)
    assert list(response.json()) == ["error"]


SPLIT = {"columns": list(COLUMNS), "data": [list(row.values()) for row in ROWS]}
BODIES: dict[str, Any] = {
    "dataframe_split": SPLIT,
    "dataframe_records": ROWS,
    "instances": ROWS,
    "inputs": {name: [row[name] for row in ROWS] for name in COLUMNS},
}


@pytest.mark.parametrize("form", BODIES)
def test_mlflow_s_forms(url: str, predictions: Any, form: str) -> None:
    response = httpx.post(f"{url}/invocations", json={form: BODIES[form], "params": {"k": 1}})
    assert (response.status_code, response.json()) == (200, {"predictions": predictions["predictions"]})


def test_what_mlflow_s_client_writes_of_a_data_frame(url: str, predictions: Any) -> None:
    """With NaN, which is no JSON, for what is missing."""
    split = {"index": [0, 1, 2], **SPLIT}
    body = json.dumps({"dataframe_split": split}).replace("null", "NaN")
    assert "NaN" in body
    response = httpx.post(f"{url}/invocations", content=body, headers={"content-type": "application/json"})
    assert response.json() == {"predictions": predictions["predictions"]}


def test_mlflow_s_csv(url: str, predictions: Any) -> None:
    text = "f,short,n,on,s\n1.0,1.5,1,True,a\n,2.5,2,False,é\n-2.5,0.1,-3,True,\n"
    for path in ("/invocations", "/models/late/invocations"):
        response = httpx.post(url + path, content=text, headers={"content-type": "text/csv; charset=utf-8"})
        assert len(response.json()["predictions"]) == 3


def test_mlflow_s_health(url: str) -> None:
    assert (httpx.get(f"{url}/ping").status_code, httpx.get(f"{url}/ping").text) == (200, "\n")
    assert httpx.get(f"{url}/version").text == nr.__version__


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b'{"instances": []}', "application/json", 400),
        (b'{"instances": [{"short": "x"}]}', "application/json", 400),
        (b'{"instances": [[1.0]]}', "application/json", 400),
        (b'{"instances": [[1.0]], "inputs": [[1.0]]}', "application/json", 400),
        (b"short\nx\n", "text/csv", 400),
        (b"x", "application/x-parquet", 415),
        (b"short\n1\n", "text/csv; charset=latin-1", 415),
    ],
)
def test_mlflow_s_errors(url: str, content: bytes, kind: str, status: int) -> None:
    response = httpx.post(f"{url}/invocations", content=content, headers={"content-type": kind})
    assert response.status_code == status
    assert response.json()["error_code"] == "BAD_REQUEST"
    assert response.json()["message"]


def test_kserve_s_version_1(url: str, predictions: Any) -> None:
    assert httpx.get(f"{url}/v1/models").json() == {"models": ["late", "doubler"]}
    assert httpx.get(f"{url}/v1/models/late").json() == {"name": "late", "ready": True}
    for path in ("/v1/models/late:predict", "/v1/models/late/versions/3:predict"):
        response = httpx.post(url + path, json={"instances": ROWS})
        assert response.json() == {"predictions": predictions["predictions"]}
    rows = [list(row.values()) for row in ROWS]
    assert httpx.post(f"{url}/v1/models/late:predict", json={"instances": rows}).json() == response.json()
    wrong = httpx.post(f"{url}/v1/models/late:predict", json={"instances": [{"x": 1}]})
    assert (wrong.status_code, list(wrong.json())) == (422, ["error"])


def test_an_answer_names_the_variant_s_version() -> None:
    variants = (Variant("canary", 4, 0.5), Variant("champion", 3, 0.5))
    deployment = Deployment("late", 1, "canary", variants, 0)
    server = ModelServer([MODEL])
    server.deploy("late", {3: MODEL, 4: NEWER}, 3, deployment)
    with server.running() as url:
        client = client_of(url)
        found = set()
        for number in range(30):
            answer = client.infer("late", tensors(), headers={"X-Entity-Id": str(number)})
            wanted = deployment.variant_of(str(number)).version
            assert answer.get_response()["model_version"] == str(wanted)
            assert (
                answer.as_numpy("scores").tolist()
                == (MODEL, NEWER)[wanted - 3].answer("predict", [MODEL.table(COLUMNS)])[0].scores
            )
            found.add(wanted)
        client.close()
        metrics = httpx.get(f"{url}/metrics").text
    assert found == {3, 4}
    assert 'variant="canary",version="4"' in metrics


def test_keys_are_demanded_in_each_protocol_s_words() -> None:
    ring = KeyRing.of([], frozenset({hashlib.sha256(b"secret").hexdigest()}))
    with ModelServer([MODEL], keys=Access(ring)).running() as url:
        assert httpx.get(f"{url}/v2/health/ready").status_code == httpx.get(f"{url}/ping").status_code == 200
        client = client_of(url)
        with pytest.raises(InferenceServerException, match="API key"):
            client.infer("late", tensors())
        assert client.infer("late", tensors(), headers={"Authorization": "Bearer secret"})
        client.close()
        refused = httpx.post(f"{url}/invocations", json={"instances": ROWS})
        assert (refused.status_code, refused.json()["error_code"]) == (401, "UNAUTHENTICATED")
        assert httpx.post(f"{url}/v1/models/late:predict", json={}).status_code == 401


def test_requests_are_counted_by_known_routes(url: str) -> None:
    httpx.post(f"{url}/v2/models/late/infer", content=b"{")
    httpx.get(f"{url}/v2/models/{'x' * 50}")
    text = httpx.get(f"{url}/metrics").text
    assert 'path="/v2/infer"' in text
    assert "xxxxx" not in text
