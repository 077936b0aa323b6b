# SPDX-License-Identifier: Apache-2.0
"""The messages of the gRPC health service.

Does:  holds the two messages of `grpc.health.v1`, in a pool of their own, so that an application may load another
       package's; asks a question, and reads an answer.
Place: both ends of a connection.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from nsm_sdk.errors import DataLoss, InvalidRequest

CHECK: Final = "/grpc.health.v1.Health/Check"
WATCH: Final = "/grpc.health.v1.Health/Watch"
SERVING: Final = 1
NOT_SERVING: Final = 2
SERVICE_UNKNOWN: Final = 3
"""The statuses of an answer; 0 is one that is not known."""


def _messages() -> tuple[Any, Any]:
    file = FileDescriptorProto(name="nsm_sdk/health.proto", package="grpc.health.v1", syntax="proto3")
    request, response = (file.message_type.add(name=f"HealthCheck{what}") for what in ("Request", "Response"))
    once = FieldDescriptorProto.LABEL_OPTIONAL
    request.field.add(name="service", number=1, type=FieldDescriptorProto.TYPE_STRING, label=once)
    statuses = response.enum_type.add(name="ServingStatus")
    for number, name in enumerate(("UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN")):
        statuses.value.add(name=name, number=number)
    of = ".grpc.health.v1.HealthCheckResponse.ServingStatus"
    response.field.add(name="status", number=1, type=FieldDescriptorProto.TYPE_ENUM, type_name=of, label=once)
    pool = DescriptorPool()
    pool.Add(file)
    found = pool.FindFileByName(file.name).message_types_by_name
    return GetMessageClass(found[request.name]), GetMessageClass(found[response.name])


HealthCheckRequest, HealthCheckResponse = _messages()


def question(service: str) -> bytes:
    """A health check request."""
    raw: bytes = HealthCheckRequest(service=service).SerializeToString()
    return raw


def asked_service(raw: bytes) -> str:
    """The service that a health check request asks for. InvalidRequest for what is none."""
    try:
        return str(HealthCheckRequest.FromString(raw).service)
    except Exception as error:
        raise InvalidRequest("not a grpc.health.v1.HealthCheckRequest", element="transport") from error


def answer(status: int) -> bytes:
    """The answer to a health check."""
    raw: bytes = HealthCheckResponse(status=status).SerializeToString()
    return raw


def is_serving(raw: bytes, url: str) -> bool:
    """Whether the answer of `url` to a health check is SERVING. DataLoss for what is no such answer."""
    try:
        return bool(HealthCheckResponse.FromString(raw).status == SERVING)
    except Exception as error:
        raise DataLoss(
            f"{url} answered a health check with no grpc.health.v1.HealthCheckResponse",
            hint="is this the address of such a peer?",
        ) from error
