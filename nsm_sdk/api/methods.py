# SPDX-License-Identifier: Apache-2.0
"""The gRPC methods of NSM, as plain data.

Does:  names each method with its path, message types and directions. Directions and types are read from the
       descriptors, so that the table cannot drift from the .proto files.
Place: a transport turns the table into stubs and handlers; nothing here knows gRPC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from nsm_sdk.api._gen.connection import Connection, ConnectionEvent, MonitorScopeSelector
from nsm_sdk.api._gen.ipam import PrefixRequest, PrefixResponse
from nsm_sdk.api._gen.networkservice import NetworkServiceRequest
from nsm_sdk.api._gen.pool import POOL
from nsm_sdk.api._gen.registry import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsm_sdk.api._gen.wellknown import Empty

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Method(Generic[RequestT, ResponseT]):
    """One gRPC method."""

    service: str
    """Full name of the service: "networkservice.NetworkService"."""
    name: str
    """Name within the service: "Request"."""
    request: type[RequestT]
    """Class of what the client sends (each message, if it streams)."""
    response: type[ResponseT]
    """Class of what the server sends (each message, if it streams)."""
    client_streaming: bool
    server_streaming: bool

    @property
    def path(self) -> str:
        """The HTTP/2 path: "/networkservice.NetworkService/Request"."""
        return f"/{self.service}/{self.name}"

    def __str__(self) -> str:
        return self.path


def _method(path: str, request: type[RequestT], response: type[ResponseT]) -> Method[RequestT, ResponseT]:
    service, name = path.split("/")
    found = POOL.FindServiceByName(service).methods_by_name[name]
    if (found.input_type, found.output_type) != (request.DESCRIPTOR, response.DESCRIPTOR):
        raise TypeError(f"{path} takes {found.input_type.full_name} and gives {found.output_type.full_name}")
    return Method(
        service=service,
        name=name,
        request=request,
        response=response,
        client_streaming=found.client_streaming,
        server_streaming=found.server_streaming,
    )


NETWORK_SERVICE_REQUEST = _method("networkservice.NetworkService/Request", NetworkServiceRequest, Connection)
NETWORK_SERVICE_CLOSE = _method("networkservice.NetworkService/Close", Connection, Empty)
MONITOR_CONNECTIONS = _method("connection.MonitorConnection/MonitorConnections", MonitorScopeSelector, ConnectionEvent)
NS_REGISTER = _method("registry.NetworkServiceRegistry/Register", NetworkService, NetworkService)
NS_UNREGISTER = _method("registry.NetworkServiceRegistry/Unregister", NetworkService, Empty)
NS_FIND = _method("registry.NetworkServiceRegistry/Find", NetworkServiceQuery, NetworkServiceResponse)
NSE_REGISTER = _method(
    "registry.NetworkServiceEndpointRegistry/Register", NetworkServiceEndpoint, NetworkServiceEndpoint
)
NSE_UNREGISTER = _method("registry.NetworkServiceEndpointRegistry/Unregister", NetworkServiceEndpoint, Empty)
NSE_FIND = _method(
    "registry.NetworkServiceEndpointRegistry/Find", NetworkServiceEndpointQuery, NetworkServiceEndpointResponse
)
MANAGE_PREFIXES = _method("ipam.IPAM/ManagePrefixes", PrefixRequest, PrefixResponse)

METHODS: Mapping[str, Method[Any, Any]] = {
    method.path: method
    for method in (
        NETWORK_SERVICE_REQUEST,
        NETWORK_SERVICE_CLOSE,
        MONITOR_CONNECTIONS,
        NS_REGISTER,
        NS_UNREGISTER,
        NS_FIND,
        NSE_REGISTER,
        NSE_UNREGISTER,
        NSE_FIND,
        MANAGE_PREFIXES,
    )
}
"""Every method of the API, by its path."""
