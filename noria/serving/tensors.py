"""Tensors of the Open Inference Protocol: from the wire to columns and back; REST and gRPC write them alike.

A tensor is one input, [n] or [n, 1], or all inputs of a model in their order, [n, inputs]. Raw values are
little-endian; an element of BYTES is text: its length as uint32, and UTF-8.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from noria.core import RequestError, allowed
from noria.serving.tabular import Column, matrix_columns

DTYPES = {
    "BOOL": np.dtype("?"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
    "BYTES": np.dtype(object),
}
_LENGTH = struct.Struct("<I")


def _list_type(datatype: str) -> Any:
    """What a flat list of plain values is checked against."""
    if not datatype.endswith(("INT8", "INT16", "INT32", "INT64")):
        kind: Any = {"BOOL": bool, "BYTES": str}.get(datatype, float)
    elif datatype == "UINT64":  # msgspec's bounds are int64
        kind = Annotated[int, msgspec.Meta(ge=0)]
    else:
        limits = np.iinfo(DTYPES[datatype])
        kind = Annotated[int, msgspec.Meta(ge=int(limits.min), le=int(limits.max))]
    return list[kind | None]


_LISTS = {datatype: _list_type(datatype) for datatype in DTYPES}
_FIELDS = {"bool": "BOOL", "float32": "FP32", "float64": "FP64"}


@dataclass(frozen=True)
class Tensor:
    """One tensor of a request: its values flat, in row-major order, as many as the shape says."""

    name: str
    shape: tuple[int, ...]
    values: list[Any] | NDArray[Any]


def datatype_of(dtype: str) -> str:
    """The protocol's word for a schema's type.

    >>> datatype_of("int8"), datatype_of("float32?"), datatype_of("uuid")
    ('INT8', 'FP32', 'BYTES')
    """
    dtype = dtype.removesuffix("?")
    return dtype.upper() if dtype.startswith("int") else _FIELDS.get(dtype, "BYTES")


def metadata(schema: Mapping[str, str]) -> list[dict[str, Any]]:
    """What a model's metadata say of its inputs or outputs; -1 is any number of rows."""
    return [{"name": name, "datatype": datatype_of(dtype), "shape": [-1]} for name, dtype in schema.items()]


def raw_tensor(name: str, datatype: str, shape: Sequence[int], raw: bytes | memoryview) -> Tensor:
    """A tensor from its bytes.

    Raises:
        RequestError: the datatype is unknown, or the bytes don't fit the shape.
    """
    count = _count(name, datatype, shape)
    if datatype == "BYTES":
        return Tensor(name, tuple(shape), _texts(name, count, raw))
    dtype = DTYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise _wrong(name, f"has {len(raw)} bytes; {datatype} of shape {list(shape)} has {count * dtype.itemsize}")
    if datatype == "BOOL":  # a byte that is neither 0 nor 1 would be a broken Boolean
        return Tensor(name, tuple(shape), np.frombuffer(raw, np.uint8) != 0)
    return Tensor(name, tuple(shape), np.frombuffer(raw, dtype))


def plain_tensor(name: str, datatype: str, shape: Sequence[int], data: Sequence[Any]) -> Tensor:
    """A tensor from JSON data, flat or nested as the shape says; null is a missing value.

    Raises:
        RequestError: the datatype is unknown, or the data doesn't fit it or the shape.
    """
    count = _count(name, datatype, shape)
    flat = data
    if len(shape) == 2 and data and isinstance(data[0], list):
        if not all(isinstance(row, list) and len(row) == shape[1] for row in data):
            raise _wrong(name, f"is not of shape {list(shape)}")
        flat = list(chain.from_iterable(data))
    if len(flat) != count:
        raise _wrong(name, f"has {len(flat)} values; shape {list(shape)} has {count}")
    try:
        return Tensor(name, tuple(shape), msgspec.convert(flat, _LISTS[datatype]))
    except msgspec.ValidationError as error:
        raise _wrong(name, f"is not {datatype}: {str(error).partition(' - at')[0]}") from None


def columns_of(tensors: Sequence[Tensor], inputs: Sequence[str]) -> dict[str, Column]:
    """The columns by name; a lone tensor [n, f] whose name is no input's has them all, in order.

    Raises:
        RequestError: two tensors have one name, or a shape is no column's.
    """
    lone = tensors[0] if len(tensors) == 1 else None
    if lone is not None and len(lone.shape) == 2 and lone.name not in inputs:
        rows, width = lone.shape
        if width != len(inputs):
            raise _wrong(lone.name, f"has {width} columns; the model reads {len(inputs)}: {', '.join(inputs)}")
        if isinstance(lone.values, np.ndarray):
            return matrix_columns(lone.values.reshape(rows, width), inputs)
        return {name: lone.values[place::width] for place, name in enumerate(inputs)}
    columns: dict[str, Column] = {}
    for tensor in tensors:
        if tensor.shape[1:] not in ((), (1,)):
            raise _wrong(tensor.name, f"has the shape {list(tensor.shape)}; a column is [n] or [n, 1]")
        if tensor.name in columns:
            raise _wrong(tensor.name, "is given twice")
        columns[tensor.name] = tensor.values
    return columns


def values_of(column: Sequence[Any]) -> tuple[str, NDArray[Any]]:
    """An output column as an array, with the datatype that it is told as."""
    values = np.asarray(column)
    datatype = {"b": "BOOL", "i": "INT64", "u": "UINT64", "f": "FP64"}.get(values.dtype.kind, "BYTES")
    return datatype, values.astype(DTYPES[datatype])


def raw_values(values: NDArray[Any]) -> bytes:
    """An output's bytes."""
    if values.dtype != object:
        return values.tobytes()
    texts = [str(value).encode() for value in values]
    return b"".join(chain.from_iterable((_LENGTH.pack(len(text)), text) for text in texts))


def asked_outputs(names: Sequence[str] | None, outputs: Mapping[str, Any]) -> list[str]:
    """The outputs that are answered: those that are asked for, or all.

    Raises:
        RequestError: the model has no such output.
    """
    for name in names or ():
        if name not in outputs:
            raise RequestError(f"the model has no output {name!r}", field="outputs", hint=allowed(outputs, name))
    return list(dict.fromkeys(names or outputs))


def refuse_parameters(what: str, parameters: Mapping[str, Any]) -> None:
    """Refuse what a tensor may ask for elsewhere.

    Raises:
        RequestError: shared memory, or classification.
    """
    for name in parameters:
        if name.startswith("shared_memory") or name == "classification":
            raise RequestError(
                f"{what}: {name} is not supported here", hint="send tensors in the request and read whole outputs"
            )


def _count(name: str, datatype: str, shape: Sequence[int]) -> int:
    if datatype not in DTYPES:
        raise RequestError(
            f"input {name!r} has the unknown datatype {datatype!r}", field=name, hint=allowed(DTYPES, datatype)
        )
    if not 1 <= len(shape) <= 2 or min(shape) < 0:
        raise _wrong(name, f"has the shape {list(shape[:8])}; allowed: [n], [n, 1] and [n, inputs]")
    return math.prod(shape)


def _texts(name: str, count: int, raw: bytes | memoryview) -> list[str]:
    texts: list[str] = []
    at, view = 0, memoryview(raw)
    while at < len(view):
        start = at + 4
        at = start + (_LENGTH.unpack_from(view, at)[0] if start <= len(view) else 0)
        if start > len(view) or at > len(view) or len(texts) == count:
            raise _wrong(name, f"holds no {count} elements of BYTES: each is a uint32 length and as many bytes")
        try:
            texts.append(str(view[start:at], "utf-8"))
        except UnicodeDecodeError:
            raise _wrong(name, f"holds what is not UTF-8 in element {len(texts)}") from None
    if len(texts) != count:
        raise _wrong(name, f"holds {len(texts)} elements of BYTES; the shape says {count}")
    return texts


def _wrong(name: str, told: str) -> RequestError:
    return RequestError(f"input {name!r} {told}", field=name)
