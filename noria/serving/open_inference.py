"""The Open Inference Protocol, version 2, over REST: bodies of `…/infer`, metadata and errors.

A body is JSON; with the header `Inference-Header-Content-Length` that many bytes of JSON, and then the tensors that
have `binary_data_size`, one after the other. Answers are written as they are asked for.
Source: github.com/kserve/open-inference-protocol, with the extension "binary tensor data".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Annotated, Any

import msgspec

from noria.core import NoriaError, RequestError
from noria.core.bodies import decode
from noria.serving.servable import Servable
from noria.serving.tabular import Column, Tabular
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
from noria.serving.tensors import metadata as tensor_metadata

HEADER = b"inference-header-content-length"
EXTENSIONS = ["binary_tensor_data", "model_repository", "statistics"]

_JSON, _BINARY = b"application/json", b"application/octet-stream"


class _Input(msgspec.Struct):
    name: str
    shape: Annotated[list[int], msgspec.Meta(min_length=1, max_length=8)]
    datatype: str
    parameters: dict[str, Any] = {}
    data: list[Any] | None = None


class _Output(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Infer(msgspec.Struct):
    inputs: Annotated[list[_Input], msgspec.Meta(min_length=1)]
    id: str = ""
    parameters: dict[str, Any] = {}
    outputs: list[_Output] | None = None


_decoder = msgspec.json.Decoder(_Infer)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class Inference:
    """A decoded request.

    Attributes:
        columns: the rows.
        id: that the client gave; the answer has it too.
        outputs: those that are asked for; None for all.
        binary: which outputs are written as raw bytes; the key "" is for those not named.
    """

    columns: dict[str, Column]
    id: str
    outputs: tuple[str, ...] | None
    binary: Mapping[str, bool]


def read_inference(header_length: bytes | None, body: bytes, servable: Tabular) -> Inference:
    """A request from its body and the value of the header that says where its JSON ends.

    Raises:
        RequestError: it is wrong; `field` names what.
    """
    head, rest = _split(header_length, body)
    request = decode(_decoder, head)
    tensors, at = [], 0
    for part in request.inputs:
        refuse_parameters(part.name, part.parameters)
        tensor, at = _tensor(part, rest, at)
        tensors.append(tensor)
    if at != len(rest):
        raise RequestError(f"{len(rest) - at} bytes after the JSON belong to no input", field="inputs")
    binary = {"": request.parameters.get("binary_data_output") is True}
    for output in request.outputs or ():
        refuse_parameters(output.name, output.parameters)
        binary[output.name] = output.parameters.get("binary_data", binary[""]) is True
    names = tuple(output.name for output in request.outputs) if request.outputs else None
    asked_outputs(names, servable.outputs)
    return Inference(columns_of(tensors, servable.inputs.names), request.id, names, binary)


def write_inference(
    servable: Tabular, asked: Inference, columns: Mapping[str, Sequence[Any]]
) -> tuple[bytes, bytes, bytes]:
    """The answer's body, its type, and further header lines."""
    outputs, raw = [], []
    for name in asked_outputs(asked.outputs, columns):
        datatype, values = values_of(columns[name])
        output: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(values.shape)}
        if asked.binary.get(name, asked.binary[""]):
            raw.append(raw_values(values))
            output["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            output["data"] = values.tolist()
        outputs.append(output)
    answer: dict[str, Any] = {"model_name": servable.model, "model_version": str(servable.version)}
    if asked.id:
        answer["id"] = asked.id
    head = _encode({**answer, "outputs": outputs})
    if not raw:
        return head, _JSON, b""
    return b"".join((head, *raw)), _BINARY, b"%b: %d\r\n" % (HEADER, len(head))


def write_error(error: NoriaError) -> bytes:
    """An error in the only form that clients of the protocol read."""
    return _encode({"error": f"{error.message}; {error.hint}" if error.hint else error.message})


def server_metadata() -> dict[str, Any]:
    """What `GET /v2` says."""
    return {"name": "noria", "version": metadata.version("noria"), "extensions": EXTENSIONS}


def model_metadata(servable: Tabular, versions: Iterable[int]) -> dict[str, Any]:
    """What `GET /v2/models/M` says."""
    return {
        "name": servable.model,
        "versions": [str(version) for version in versions],
        "platform": "noria",
        "inputs": tensor_metadata(servable.inputs.to_dict()),
        "outputs": tensor_metadata(servable.outputs),
    }


def index_entry(servable: Servable) -> dict[str, Any]:
    """What `POST /v2/repository/index` says of one version."""
    return {"name": servable.model, "version": str(servable.version), "state": "READY", "reason": ""}


def _split(header_length: bytes | None, body: bytes) -> tuple[bytes, memoryview]:
    if header_length is None:
        return body, memoryview(b"")
    text = header_length.strip()
    if not text.isdigit() or len(text) > 18 or int(text) > len(body):
        raise RequestError(
            f"Inference-Header-Content-Length is {text[:30].decode('latin-1')!r}; the body has {len(body)} bytes",
            hint="give the number of bytes of JSON at the body's start",
        )
    return body[: int(text)], memoryview(body)[int(text) :]


def _tensor(part: _Input, rest: memoryview, at: int) -> tuple[Tensor, int]:
    size = part.parameters.get("binary_data_size")
    if size is None:
        if part.data is None:
            raise RequestError(f"input {part.name!r} has no data", field=part.name, hint="give data, or raw bytes")
        return plain_tensor(part.name, part.datatype, part.shape, part.data), at
    if part.data is not None or type(size) is not int or not 0 <= size <= len(rest) - at:
        raise RequestError(
            f"input {part.name!r} has the binary_data_size {size!r}, and {len(rest) - at} bytes are left",
            field=part.name,
            hint="after the JSON come the raw tensors, in the order of the inputs; they have no `data`",
        )
    return raw_tensor(part.name, part.datatype, part.shape, rest[at : at + size]), at + size
