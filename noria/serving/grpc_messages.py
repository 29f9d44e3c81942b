"""The messages of the Open Inference Protocol over gRPC, as classes that protobuf makes of the table below.

Fields are numbered in their order. The table has what this server speaks of; what else a client sends is skipped, as
protobuf does with unknown fields. The classes are in a pool of their own: clients of the protocol in the same process
register messages of the same names.
Source: github.com/kserve/open-inference-protocol, `grpc_predict_v2.proto`, with the model repository and statistics.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

# A name in braces is a map from text to it, in brackets a list of it.
_MESSAGES = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:bool",
    "ModelReadyRequest": "name:string version:string",
    "ModelReadyResponse": "ready:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:string version:string extensions:[string]",
    "ModelMetadataRequest": "name:string version:string",
    "ModelMetadataResponse": "name:string versions:[string] platform:string inputs:[TensorMetadata] "
    "outputs:[TensorMetadata]",
    "TensorMetadata": "name:string datatype:string shape:[int64]",
    "InferParameter": "bool_param:bool int64_param:int64 string_param:string double_param:double uint64_param:uint64",
    "InferTensorContents": "bool_contents:[bool] int_contents:[int32] int64_contents:[int64] uint_contents:[uint32] "
    "uint64_contents:[uint64] fp32_contents:[float] fp64_contents:[double] bytes_contents:[bytes]",
    "ModelInferRequest": "model_name:string model_version:string id:string parameters:{InferParameter} "
    "inputs:[InferTensor] outputs:[InferRequestedOutputTensor] raw_input_contents:[bytes]",
    "ModelInferResponse": "model_name:string model_version:string id:string parameters:{InferParameter} "
    "outputs:[InferTensor] raw_output_contents:[bytes]",
    "InferTensor": "name:string datatype:string shape:[int64] parameters:{InferParameter} contents:InferTensorContents",
    "InferRequestedOutputTensor": "name:string parameters:{InferParameter}",
    "ModelStreamInferResponse": "error_message:string infer_response:ModelInferResponse",
    "ModelStatisticsRequest": "name:string version:string",
    "ModelStatisticsResponse": "model_stats:[ModelStatistics]",
    "ModelStatistics": "name:string version:string last_inference:uint64 inference_count:uint64 "
    "execution_count:uint64 inference_stats:InferStatistics",
    "InferStatistics": "success:StatisticDuration",
    "StatisticDuration": "count:uint64 ns:uint64",
    "RepositoryIndexRequest": "repository_name:string ready:bool",
    "RepositoryIndexResponse": "models:[ModelIndex]",
    "ModelIndex": "name:string version:string state:string reason:string",
    "RepositoryModelLoadRequest": "repository_name:string model_name:string",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "repository_name:string model_name:string",
    "RepositoryModelUnloadResponse": "",
}

_FIELD = descriptor_pb2.FieldDescriptorProto
_REPEATED = _FIELD.LABEL_REPEATED


def _made() -> dict[str, type[Any]]:
    file = descriptor_pb2.FileDescriptorProto(name="noria/open_inference.proto", package=PACKAGE, syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, _, kind) in enumerate((part.partition(":") for part in fields.split()), 1):
            made = message.field.add(name=field, number=number, label=_FIELD.LABEL_OPTIONAL)
            if kind.startswith(("[", "{")):
                made.label = _REPEATED
            if kind.startswith("{"):
                _set_type(made, _add_entry(message, field, kind[1:-1]))
            else:
                _set_type(made, kind.strip("[]"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = pool.FindFileByName(file.name).message_types_by_name
    return {name: message_factory.GetMessageClass(found[name]) for name in _MESSAGES}


def _set_type(field: Any, kind: str) -> None:
    if kind.split(".")[0] in _MESSAGES:
        field.type, field.type_name = _FIELD.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
    else:
        field.type = _FIELD.Type.Value(f"TYPE_{kind.upper()}")


def _add_entry(message: Any, field: str, value: str) -> str:
    """A map is a list of messages with `key` and `value`."""
    entry = message.nested_type.add(name="".join(map(str.capitalize, field.split("_"))) + "Entry")
    entry.options.map_entry = True
    for number, (name, kind) in enumerate((("key", "string"), ("value", value)), 1):
        _set_type(entry.field.add(name=name, number=number, label=_FIELD.LABEL_OPTIONAL), kind)
    return f"{message.name}.{entry.name}"


MESSAGES = _made()
"""The classes by name."""
