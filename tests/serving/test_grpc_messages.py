from __future__ import annotations

from typing import Any

from tritonclient.grpc import service_pb2

from noria.serving.grpc_messages import MESSAGES

RENAMED = {"InferTensor": ("InferInputTensor", "InferOutputTensor")}


def theirs() -> dict[str, Any]:
    found: dict[str, Any] = {}

    def add(message: Any) -> None:
        found[message.name] = message
        for inner in message.nested_types:
            add(inner)

    for message in service_pb2.DESCRIPTOR.message_types_by_name.values():
        add(message)
    return found


def test_every_field_is_the_protocol_s() -> None:
    known = theirs()
    for name, message in MESSAGES.items():
        for other in RENAMED.get(name, (name,)):
            published = {field.number: field for field in known[other].fields}
            for field in message.DESCRIPTOR.fields:
                same = published[field.number]
                assert (field.name, field.type, field.is_repeated) == (same.name, same.type, same.is_repeated), name


def test_messages_of_the_client_are_read_and_ours_by_the_client() -> None:
    request = service_pb2.ModelInferRequest(model_name="late", id="7", raw_input_contents=[b"abc"])
    request.parameters["timeout"].int64_param = 5
    request.inputs.add(name="x", datatype="FP32", shape=[2]).contents.fp32_contents.extend([1.5, 2.5])
    ours = MESSAGES["ModelInferRequest"].FromString(request.SerializeToString())
    assert ours.parameters["timeout"].int64_param == 5
    assert list(ours.inputs[0].contents.fp32_contents) == [1.5, 2.5]
    assert service_pb2.ModelInferRequest.FromString(ours.SerializeToString()) == request
