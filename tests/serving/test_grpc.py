"""The Open Inference Protocol over gRPC, with its own client."""

from __future__ import annotations

import hashlib
import importlib
import queue
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from doubler import Doubler
from hypothesis import given, settings
from hypothesis import strategies as st
from late_model import SCHEMA, servable
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput, service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

import noria as nr
from noria.core import MissingExtraError, RequestError, StorageError
from noria.serving import Access, KeyRing, Limits, ModelServer
from noria.serving.grpc_door import GrpcDoor
from noria.serving.grpc_inference import parsed, read_infer

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


@pytest.fixture(scope="module")
def door() -> Iterator[tuple[str, str]]:
    """The addresses of gRPC and of HTTP."""
    opened = GrpcDoor()
    server = ModelServer([MODEL, Doubler()], grpc=opened)
    server.deploy("late", {3: MODEL, 4: NEWER}, champion=3)
    with server.running() as url:
        yield f"127.0.0.1:{opened.port}", url


@pytest.fixture(scope="module")
def client(door: tuple[str, str]) -> Iterator[InferenceServerClient]:
    with InferenceServerClient(door[0]) as opened:
        yield opened


@pytest.fixture(scope="module")
def predictions(door: tuple[str, str]) -> Any:
    rows = [
        {name: None if value != value else value for name, value in zip(COLUMNS, row, strict=True)}
        for row in zip(*(column.tolist() for column in COLUMNS.values()), strict=True)
    ]
    return httpx.post(f"{door[1]}/models/late/predict", json={"instances": rows}).raise_for_status().json()


def tensors(columns: dict[str, np.ndarray] = COLUMNS) -> list[InferInput]:
    made = []
    for name, values in columns.items():
        made.append(InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
        made[-1].set_data_from_numpy(values)
    return made


def test_triton_s_client_infers_in_its_default_mode(client: InferenceServerClient, predictions: Any) -> None:
    result = client.infer("late", tensors(), request_id="r1", client_timeout=20)
    assert result.as_numpy("predictions").tolist() == predictions["predictions"]
    assert result.as_numpy("scores").tolist() == predictions["scores"]
    assert (result.get_response().model_version, result.get_response().id) == ("3", "r1")
    newer = client.infer("late", tensors(), model_version="4", outputs=[InferRequestedOutput("scores")])
    assert newer.get_response().model_version == "4"
    assert newer.as_numpy("predictions") is None


def test_triton_s_client_is_told_what_there_is(client: InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("late", "4")
    assert client.get_server_metadata().name == "noria"
    metadata = client.get_model_metadata("late")
    assert list(metadata.versions) == ["3", "4"]
    assert [(part.name, part.datatype, list(part.shape)) for part in metadata.inputs][:2] == [
        ("f", "FP64", [-1]),
        ("short", "FP32", [-1]),
    ]
    before = client.get_inference_statistics("late", "4").model_stats[0].inference_count
    client.infer("late", tensors(), model_version="4")
    assert client.get_inference_statistics("late", "4").model_stats[0].inference_count == before + 3
    assert len(client.get_inference_statistics().model_stats) == 3
    index = client.get_model_repository_index()
    assert {(entry.name, entry.state) for entry in index.models} == {("late", "READY"), ("doubler", "READY")}
    client.load_model("late")
    client.unload_model("nobody")
    for change in (lambda: client.load_model("nobody"), lambda: client.unload_model("late")):
        with pytest.raises(InferenceServerException, match="follows the registry"):
            change()


@pytest.mark.parametrize(
    ("model", "version", "columns", "code", "message"),
    [
        ("nobody", "", COLUMNS, "NOT_FOUND", "no model 'nobody'"),
        ("late", "9", COLUMNS, "NOT_FOUND", "version '9'"),
        ("late", "", {"f": COLUMNS["f"]}, "INVALID_ARGUMENT", "'short' is missing"),
        ("late", "", {"short": np.array([1.0, np.nan])}, "INVALID_ARGUMENT", r"short\[1\] is missing"),
        ("doubler", "", COLUMNS, "INVALID_ARGUMENT", "rows of a table"),
    ],
)
def test_triton_s_client_reads_the_errors(
    client: InferenceServerClient, model: str, version: str, columns: Any, code: str, message: str
) -> None:
    with pytest.raises(InferenceServerException, match=message) as caught:
        client.infer(model, tensors(columns), model_version=version)
    assert code in caught.value.status()


def test_typed_contents_are_answered_in_kind(door: tuple[str, str], predictions: Any) -> None:
    request = service_pb2.ModelInferRequest(model_name="late")
    fields = {"f": "fp64", "short": "fp32", "n": "int", "on": "bool", "s": "bytes"}
    for name, values in COLUMNS.items():
        part = request.inputs.add(name=name, datatype=np_to_triton_dtype(values.dtype), shape=[3, 1])
        plain = [value.encode() for value in values] if name == "s" else values.tolist()
        getattr(part.contents, f"{fields[name]}_contents").extend(plain)
    with grpc.insecure_channel(door[0]) as channel:
        response = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request)
    assert not response.raw_output_contents
    assert list(response.outputs[1].contents.fp64_contents) == predictions["scores"]


def test_a_stream_answers_each_request(door: tuple[str, str], predictions: Any) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with InferenceServerClient(door[0]) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for model in ("late", "nobody", "late"):
            client.async_stream_infer(model, tensors())
        found = [answers.get(timeout=20) for _ in range(3)]
        client.stop_stream()
    assert found[0][0].as_numpy("scores").tolist() == predictions["scores"]
    assert "nobody" in str(found[1][1])
    assert found[2][1] is None


def test_keys_limits_and_taken_ports(door: tuple[str, str]) -> None:
    ring = KeyRing.of([], frozenset({hashlib.sha256(b"secret").hexdigest()}))
    opened = GrpcDoor()
    limits = Limits(max_body_bytes=1000)
    with ModelServer([MODEL], keys=Access(ring), limits=limits, grpc=opened).running():
        with InferenceServerClient(f"127.0.0.1:{opened.port}") as client:
            assert client.is_server_ready()
            for headers in ({}, {"x-api-key": "wrong"}):
                with pytest.raises(InferenceServerException, match="API key") as caught:
                    client.infer("late", tensors(), headers=headers)
                assert "UNAUTHENTICATED" in caught.value.status()
            for headers in ({"x-api-key": "secret"}, {"authorization": "Bearer secret"}):
                assert client.infer("late", tensors(), headers=headers)
            with pytest.raises(InferenceServerException) as caught:
                client.infer("late", tensors({"short": np.ones(500, dtype="f4")}), headers=headers)
            assert "RESOURCE_EXHAUSTED" in caught.value.status()
        taken = ModelServer([MODEL], grpc=GrpcDoor(port=opened.port))
        with pytest.raises(StorageError, match=str(opened.port)), taken.running():
            pass


class Slow(Doubler):
    """Doubles columns, and takes its time."""

    inputs = SCHEMA
    outputs: dict[str, str] = {}  # noqa: RUF012
    lookup = None

    def table(self, columns: Any) -> Any:
        return self.decode("predict", b'{"x": 1}')

    def columns(self, answer: Any) -> Any:
        return {"predictions": [answer["value"]]}

    def answer(self, operation: str, requests: Any) -> Any:
        time.sleep(0.3)
        return super().answer(operation, requests)


def test_a_deadline_and_an_open_call_at_the_end() -> None:
    opened = GrpcDoor()
    found: list[Any] = []
    with ModelServer([Slow("slow")], grpc=opened).running():
        client = InferenceServerClient(f"127.0.0.1:{opened.port}")
        with pytest.raises(InferenceServerException, match="Deadline"):
            client.infer("slow", tensors(), client_timeout=0.05)
        thread = threading.Thread(target=lambda: found.append(client.infer("slow", tensors(), client_timeout=20)))
        thread.start()
        time.sleep(0.1)
    thread.join()
    client.close()
    assert found[0].as_numpy("predictions").tolist() == [2.0]


def test_requests_are_counted(door: tuple[str, str], client: InferenceServerClient) -> None:
    client.infer("late", tensors())
    text = httpx.get(f"{door[1]}/metrics").text
    statistics = httpx.get(f"{door[1]}/v2/models/late/versions/3/stats").json()["model_stats"][0]
    assert statistics["inference_count"] >= 3  # those of REST and gRPC together
    assert 'path="/inference.GRPCInferenceService/ModelInfer"' in text


def test_without_grpcio_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc", None)
    monkeypatch.delitem(sys.modules, "noria.serving.grpc_door")
    with pytest.raises(MissingExtraError, match=r"noria\[grpc\]"):
        importlib.import_module("noria.serving.grpc_door")


GOOD = service_pb2.ModelInferRequest(model_name="late")
for tensor in tensors():
    GOOD.inputs.append(tensor._get_tensor())
    GOOD.raw_input_contents.append(tensor._get_content())
BODY = GOOD.SerializeToString()


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(BODY) - 1), st.binary(max_size=3)), min_size=1, max_size=4),
    st.booleans(),
)
def test_a_mutated_message_is_read_or_refused(changes: Any, is_typed: bool) -> None:
    body = BODY
    for at, replacement in changes:
        body = body[:at] + replacement + body[at + 1 :]
    try:
        request = parsed("ModelInferRequest", body)
        if is_typed:
            del request.raw_input_contents[:]
        MODEL.answer("predict", [MODEL.table(read_infer(request, MODEL).columns)])
        status = 200
    except RequestError as error:
        status = error.status
    assert 200 <= status < 500
