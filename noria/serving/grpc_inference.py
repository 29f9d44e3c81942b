"""Requests and answers of `ModelInfer` as gRPC's messages: tensors as raw bytes, or typed contents; and what else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError

from noria.core import RequestError
from noria.serving.grpc_messages import MESSAGES
from noria.serving.open_inference import Inference
from noria.serving.tabular import Tabular
from noria.serving.tensors import (
    Tensor,
    asked_outputs,
    columns_of,
    plain_tensor,
    raw_tensor,
    raw_values,
    refuse_parameters,
    values_of,
)

_CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def parsed(name: str, data: bytes) -> Any:
    """A message of this name from its bytes.

    Raises:
        RequestError: they are none.
    """
    try:
        return MESSAGES[name].FromString(data)
    except DecodeError as error:
        raise RequestError(f"this is no {name}: {error}") from None


def read_infer(request: Any, servable: Tabular) -> Inference:
    """A `ModelInferRequest`; it is answered in raw bytes if it has raw bytes, else in typed contents.

    Raises:
        RequestError: it is wrong; `field` names what.
    """
    raw = request.raw_input_contents
    if not request.inputs:
        raise RequestError("there are no inputs", field="inputs")
    if raw and len(raw) != len(request.inputs):
        raise RequestError(
            f"there are {len(request.inputs)} inputs and {len(raw)} raw_input_contents", field="raw_input_contents"
        )
    for part in (*request.inputs, *request.outputs):
        refuse_parameters(part.name, part.parameters)
    if raw:
        tensors = [
            raw_tensor(part.name, part.datatype, part.shape, values)
            for part, values in zip(request.inputs, raw, strict=True)
        ]
    else:
        tensors = [_typed(part) for part in request.inputs]
    names = tuple(output.name for output in request.outputs) or None
    asked_outputs(names, servable.outputs)
    return Inference(columns_of(tensors, servable.inputs.names), request.id, names, {"": bool(raw)})


def write_infer(servable: Tabular, asked: Inference, columns: Mapping[str, Sequence[Any]]) -> Any:
    """The `ModelInferResponse`."""
    response = MESSAGES["ModelInferResponse"](
        model_name=servable.model, model_version=str(servable.version), id=asked.id
    )
    for name in asked_outputs(asked.outputs, columns):
        datatype, values = values_of(columns[name])
        output = response.outputs.add(name=name, datatype=datatype, shape=values.shape)
        if asked.binary[""]:
            response.raw_output_contents.append(raw_values(values))
        else:
            plain = [str(value).encode() for value in values] if datatype == "BYTES" else values.tolist()
            getattr(output.contents, _CONTENTS[datatype]).extend(plain)
    return response


def _typed(part: Any) -> Tensor:
    field = _CONTENTS.get(part.datatype)
    if field is None:  # FP16 has no typed contents
        return raw_tensor(part.name, part.datatype, part.shape, b"")
    values = list(getattr(part.contents, field))
    if part.datatype == "BYTES":
        try:
            values = [value.decode() for value in values]
        except UnicodeDecodeError:
            raise RequestError(f"input {part.name!r} holds what is not UTF-8", field=part.name) from None
    return plain_tensor(part.name, part.datatype, part.shape, values)
