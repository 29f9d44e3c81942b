from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from late_model import SCHEMA, servable
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import np_to_triton_dtype

import noria as nr
from noria.core import RequestError, Schema
from noria.serving.open_inference import HEADER, model_metadata, read_inference, write_error, write_inference
from noria.serving.tensors import DTYPES

MODEL = servable(SCHEMA, nr.Impute(), nr.Encode())
NUMBERS = servable(Schema.of({"f": "float64?", "short": "float32", "n": "int8?"}))


def client_input(name: str, values: np.ndarray, binary: bool = True) -> InferInput:
    tensor = InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    return tensor.set_data_from_numpy(values, binary_data=binary)


def body_of(*inputs: InferInput, **options: Any) -> tuple[bytes, bytes | None]:
    body, length = InferenceServerClient.generate_request_body(list(inputs), **options)
    return body, None if length is None else str(length).encode()


def infer(*inputs: InferInput, model: Any = MODEL, **options: Any) -> Any:
    body, length = body_of(*inputs, **options)
    asked = read_inference(length, body, model)
    (answer,) = model.answer("predict", [model.table(asked.columns)])
    written, _, extra = write_inference(model, asked, model.columns(answer))
    header = int(extra.split(b":")[1]) if extra else None
    return InferenceServerClient.parse_response_body(written, header_length=header)


ROWS = {
    "f": np.array([1.0, np.nan, -2.5]),
    "short": np.array([1.5, 2.5, 0.1], dtype="f4"),
    "n": np.array([1, 2, -3], dtype="i1"),
    "on": np.array([True, False, True]),
    "s": np.array(["a", "é", ""], dtype=object),
}


def expected(model: Any = MODEL) -> Any:
    rows = [
        {name: None if value != value else value for name, value in zip(ROWS, row, strict=True) if name in model.inputs}
        for row in zip(*(column.tolist() for column in ROWS.values()), strict=True)
    ]
    return model.answer("predict", [model.decode("predict", msgspec.json.encode({"instances": rows}))])[0]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_the_client_s_default_binary_request_is_answered_in_binary(shape: tuple[int, ...]) -> None:
    result = infer(*(client_input(name, values.reshape(shape)) for name, values in ROWS.items()), request_id="r7")
    assert result.as_numpy("predictions").tolist() == expected().predictions
    assert result.as_numpy("scores").tolist() == expected().scores
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("late", "3", "r7")
    assert response["outputs"][1]["parameters"] == {"binary_data_size": 24}


def test_json_requests_and_chosen_outputs() -> None:
    columns = {name: values for name, values in ROWS.items() if name != "f"}  # NaN isn't JSON
    inputs = [client_input(name, values, binary=False) for name, values in columns.items()]
    plain = InferRequestedOutput("scores", binary_data=False)
    result = infer(*inputs, outputs=[plain])
    assert [output["name"] for output in result.get_response()["outputs"]] == ["scores"]
    assert "data" in result.get_output("scores")
    mixed = infer(*inputs, outputs=[InferRequestedOutput("predictions"), plain])
    assert mixed.as_numpy("scores").tolist() == result.as_numpy("scores").tolist()
    assert "data" not in mixed.get_output("predictions")


@pytest.mark.parametrize("name", ["input", "input-0"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "u8"])
def test_one_matrix_has_the_inputs_in_order(name: str, binary: bool, dtype: str) -> None:
    matrix = np.array([[1, 2, 3], [4, 5, 6]], dtype=dtype)
    whole = infer(client_input(name, matrix, binary), model=NUMBERS)
    parts = infer(*(client_input(n, matrix[:, i]) for i, n in enumerate(NUMBERS.inputs.names)), model=NUMBERS)
    assert whole.as_numpy("scores").tolist() == parts.as_numpy("scores").tolist()


def test_nested_json_is_read_like_flat() -> None:
    def ask(data: Any) -> Any:
        tensor = {"name": "x", "shape": [2, 3], "datatype": "FP64", "data": data}
        return read_inference(None, json.dumps({"inputs": [tensor]}).encode(), NUMBERS).columns

    assert ask([[1, 2, 3], [4, 5, None]]) == ask([1, 2, 3, 4, 5, None])
    assert ask([1, 2, 3, 4, 5, None])["n"] == [3.0, None]


@pytest.mark.parametrize("datatype", sorted(set(DTYPES) - {"BYTES"}))
def test_every_datatype_is_read(datatype: str) -> None:
    values = np.array([0, 1, 1]).astype(DTYPES[datatype])
    columns = {"short": np.ones(3), "on" if datatype == "BOOL" else "n": values}
    result = infer(*(client_input(name, column) for name, column in columns.items()))
    plain = infer(*(client_input(name, column, binary=False) for name, column in columns.items()))
    assert result.as_numpy("scores").tolist() == plain.as_numpy("scores").tolist()


def tensor(**change: Any) -> bytes:
    return json.dumps(
        {"inputs": [{"name": "short", "shape": [2], "datatype": "FP32", "data": [1, 2], **change}]}
    ).encode()


@pytest.mark.parametrize(
    ("length", "body", "message"),
    [
        (None, b"", "JSON"),
        (None, b"[]", "object"),
        (None, b'{"inputs": []}', "inputs"),
        (None, tensor(shape=[2**40]), "1099511627776"),
        (None, tensor(shape=[-2]), "shape"),
        (None, tensor(shape=[2, 2, 2]), "shape"),
        (None, tensor(shape=[2**62] * 8), "shape"),
        (None, tensor(shape=[]), "shape"),
        (None, tensor(shape=[0, 2**40], data=[]), "column is"),
        (None, tensor(shape=[1.5]), "shape"),
        (None, tensor(datatype="BF16"), "BF16"),
        (None, tensor(data=[1, "2"]), "not FP32"),
        (None, tensor(data=[[1], [2], [3]]), "values"),
        (None, tensor(data=[[1], 2], shape=[2, 1]), r"not of shape \[2, 1\]"),
        (None, tensor(data=[[[1]], [[2]]], shape=[2, 1]), "not FP32"),
        (None, tensor(data=None), "no data"),
        (None, tensor(parameters={"binary_data_size": 8}), "binary_data_size"),
        (None, tensor(parameters={"shared_memory_region": "x"}), "shared_memory"),
        (b"-1", tensor(), "Inference-Header"),
        (b"x", tensor(), "Inference-Header"),
        (b"9" * 5000, tensor(), "Inference-Header"),
        (b"100000", tensor(), "Inference-Header"),
        (b"10", tensor(), "JSON"),
        (str(len(tensor())).encode(), tensor() + b"rest", "4 bytes"),
    ],
)
def test_wrong_bodies_are_told_what_is_wrong(length: bytes | None, body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        read_inference(length, body, MODEL)
    assert 400 <= caught.value.status < 500
    assert list(json.loads(write_error(caught.value))) == ["error"]


@pytest.mark.parametrize("size", [-8, 0, 4, 12, 2**70, True, "8", 8.0])
def test_a_wrong_binary_data_size_is_refused(size: Any) -> None:
    head = tensor(data=None, parameters={"binary_data_size": size})
    with pytest.raises(RequestError):
        read_inference(str(len(head)).encode(), head + bytes(8), MODEL)


@pytest.mark.parametrize(
    "raw", [b"", b"\x00" * 3, b"\xff\xff\xff\xff", b"\x05\x00\x00\x00abcd", b"\x01\x00\x00\x00\xff" * 2, bytes(12)]
)
def test_broken_bytes_are_refused(raw: bytes) -> None:
    part = {"name": "s", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": len(raw)}}
    head = json.dumps({"inputs": [part]}).encode()
    with pytest.raises(RequestError):
        read_inference(str(len(head)).encode(), head + raw, MODEL)


def status(length: bytes | None, body: bytes) -> int:
    try:
        MODEL.answer("predict", [MODEL.table(read_inference(length, body, MODEL).columns)])
    except RequestError as error:
        return error.status
    return 200


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TENSOR = st.fixed_dictionaries(
    {
        "name": st.sampled_from([*SCHEMA.names, "x"]),
        "shape": st.lists(st.integers(-2, 2**64) | st.integers(0, 4), max_size=4),
    },
    optional={
        "datatype": st.sampled_from([*DTYPES, "BF16", ""]),
        "data": st.lists(JSON, max_size=4),
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "x"]), st.integers(-9, 40) | JSON, max_size=2
        ),
    },
)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(TENSOR | JSON, max_size=3), JSON, st.binary(max_size=40), st.none() | st.integers(-3, 500) | st.just("fit")
)
def test_whatever_the_body_it_is_read_or_refused(inputs: Any, extra: Any, raw: bytes, length: Any) -> None:
    head = json.dumps({"inputs": inputs, "outputs": extra} if extra else {"inputs": inputs}).encode()
    length = str(len(head) if length == "fit" else length).encode() if length is not None else None
    assert 200 <= status(length, head + raw) < 500


GOOD, GOOD_LENGTH = body_of(*(client_input(name, values) for name, values in ROWS.items()))


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.binary(max_size=3)), min_size=1, max_size=4))
def test_a_mutated_body_is_read_or_refused(changes: Any) -> None:
    body = GOOD
    for at, replacement in changes:
        body = body[:at] + replacement + body[at + 1 :]
    assert 200 <= status(GOOD_LENGTH, body) < 500


def test_the_model_is_described_in_the_protocol_s_words() -> None:
    told = model_metadata(MODEL, [3])
    assert told["versions"] == ["3"]
    assert [part["datatype"] for part in told["inputs"]] == ["FP64", "FP32", "INT8", "BOOL", "BYTES"]
    assert told["outputs"] == [
        {"name": "predictions", "datatype": "BOOL", "shape": [-1]},
        {"name": "scores", "datatype": "FP64", "shape": [-1]},
    ]
    assert HEADER == b"inference-header-content-length"
