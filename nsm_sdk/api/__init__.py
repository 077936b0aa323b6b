# SPDX-License-Identifier: Apache-2.0
"""Messages of the NSM wire protocol under short names, and typed helpers for them.

Does:  re-exports the generated messages, the table of gRPC methods, and helpers for paths, mechanisms, URLs, monitor
       selectors and stored messages. Messages live in a descriptor pool of their own, so that another package's
       NSM stubs may be loaded beside them.
Place: under everything but nsm_sdk.errors; no module outside this package imports generated code.
State: none.
"""

from google.protobuf.message import Message

from nsm_sdk.api._gen.connection import (
    Connection,
    ConnectionEvent,
    Mechanism,
    Path,
    PathSegment,
    State,
)
from nsm_sdk.api._gen.connection import (
    ConnectionEventType as EventType,
)
from nsm_sdk.api._gen.connection import (
    MonitorScopeSelector as Selector,
)
from nsm_sdk.api._gen.connectioncontext import (
    ConnectionContext,
    DNSConfig,
    DNSContext,
    EthernetContext,
    ExtraPrefixRequest,
    IPContext,
    IpFamily,
    IpNeighbor,
    PolicyRoute,
    Route,
)
from nsm_sdk.api._gen.ipam import (
    PrefixRequest,
    PrefixResponse,
)
from nsm_sdk.api._gen.ipam import (
    Type as PrefixType,
)
from nsm_sdk.api._gen.networkservice import (
    NetworkServiceRequest as Request,
)
from nsm_sdk.api._gen.registry import (
    Destination,
    Match,
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceLabels,
    NetworkServiceQuery,
    NetworkServiceResponse,
)
from nsm_sdk.api._gen.registry import (
    Metadata as MatchMetadata,
)
from nsm_sdk.api._gen.wellknown import (
    Empty,
    Timestamp,
)
from nsm_sdk.api.methods import (
    MANAGE_PREFIXES,
    METHODS,
    MONITOR_CONNECTIONS,
    NETWORK_SERVICE_CLOSE,
    NETWORK_SERVICE_REQUEST,
    NS_FIND,
    NS_REGISTER,
    NS_UNREGISTER,
    NSE_FIND,
    NSE_REGISTER,
    NSE_UNREGISTER,
    Method,
)

__all__ = [
    "MANAGE_PREFIXES",
    "METHODS",
    "MONITOR_CONNECTIONS",
    "NETWORK_SERVICE_CLOSE",
    "NETWORK_SERVICE_REQUEST",
    "NSE_FIND",
    "NSE_REGISTER",
    "NSE_UNREGISTER",
    "NS_FIND",
    "NS_REGISTER",
    "NS_UNREGISTER",
    "Connection",
    "ConnectionContext",
    "ConnectionEvent",
    "DNSConfig",
    "DNSContext",
    "Destination",
    "Empty",
    "EthernetContext",
    "EventType",
    "ExtraPrefixRequest",
    "IPContext",
    "IpFamily",
    "IpNeighbor",
    "Match",
    "MatchMetadata",
    "Mechanism",
    "Message",
    "Method",
    "NetworkService",
    "NetworkServiceEndpoint",
    "NetworkServiceEndpointQuery",
    "NetworkServiceEndpointResponse",
    "NetworkServiceLabels",
    "NetworkServiceQuery",
    "NetworkServiceResponse",
    "Path",
    "PathSegment",
    "PolicyRoute",
    "PrefixRequest",
    "PrefixResponse",
    "PrefixType",
    "Request",
    "Route",
    "Selector",
    "State",
    "Timestamp",
]
