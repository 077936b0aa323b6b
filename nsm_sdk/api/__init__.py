# SPDX-License-Identifier: Apache-2.0
"""Messages of the NSM wire protocol under short names, and typed helpers for them.

Does:  re-exports the generated messages, the table of gRPC methods, and helpers for paths, mechanisms, URLs, monitor
       selectors and stored messages. Messages live in a descriptor pool of their own, so that another package's
       NSM stubs may be loaded beside them.
Place: under everything but nsm_sdk.errors; no module outside this package imports generated code.
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
from nsm_sdk.api.addresses import (
    Target,
)
from nsm_sdk.api.context import (
    check_extra_prefix_request,
    policy_route,
    policy_source,
    port_range,
    with_client_info,
)
from nsm_sdk.api.groups import (
    Prefix,
    prefix,
    prefix_groups,
    url_groups,
)
from nsm_sdk.api.interface import (
    MAX_INTERFACE_NAME,
    check_interface_name,
    interface_name,
    nanoid,
)
from nsm_sdk.api.kernel import (
    complete_kernel,
    prefer_kernel,
)
from nsm_sdk.api.mechanism import (
    DEFAULT_NETNS_URL,
    ETHERNET,
    IP,
    IPSEC,
    KERNEL,
    LOCAL,
    MEMIF,
    NOOP,
    REMOTE,
    SRV6,
    VFIO,
    VIEWS,
    VLAN,
    VXLAN,
    WIREGUARD,
    Ipsec,
    Kernel,
    Memif,
    Srv6,
    Tunnel,
    Vfio,
    View,
    Vlan,
    Vxlan,
    Wireguard,
    validate,
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
from nsm_sdk.api.path import (
    check_path,
    describe,
    expiry,
    first,
    following,
    keys,
    matches,
    names,
    previous,
    seconds,
    segment,
    set_expiry,
    state_name,
    timestamp,
    without_tokens,
)
from nsm_sdk.api.snapshot import (
    Snapshot,
)
from nsm_sdk.api.urls import (
    ServiceUrl,
    is_interdomain,
    join_domain,
    split_domain,
)

__all__ = [
    "DEFAULT_NETNS_URL",
    "ETHERNET",
    "IP",
    "IPSEC",
    "KERNEL",
    "LOCAL",
    "MANAGE_PREFIXES",
    "MAX_INTERFACE_NAME",
    "MEMIF",
    "METHODS",
    "MONITOR_CONNECTIONS",
    "NETWORK_SERVICE_CLOSE",
    "NETWORK_SERVICE_REQUEST",
    "NOOP",
    "NSE_FIND",
    "NSE_REGISTER",
    "NSE_UNREGISTER",
    "NS_FIND",
    "NS_REGISTER",
    "NS_UNREGISTER",
    "REMOTE",
    "SRV6",
    "VFIO",
    "VIEWS",
    "VLAN",
    "VXLAN",
    "WIREGUARD",
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
    "Ipsec",
    "Kernel",
    "Match",
    "MatchMetadata",
    "Mechanism",
    "Memif",
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
    "Prefix",
    "PrefixRequest",
    "PrefixResponse",
    "PrefixType",
    "Request",
    "Route",
    "Selector",
    "ServiceUrl",
    "Snapshot",
    "Srv6",
    "State",
    "Target",
    "Timestamp",
    "Tunnel",
    "Vfio",
    "View",
    "Vlan",
    "Vxlan",
    "Wireguard",
    "check_extra_prefix_request",
    "check_interface_name",
    "check_path",
    "complete_kernel",
    "describe",
    "expiry",
    "first",
    "following",
    "interface_name",
    "is_interdomain",
    "join_domain",
    "keys",
    "matches",
    "names",
    "nanoid",
    "policy_route",
    "policy_source",
    "port_range",
    "prefer_kernel",
    "prefix",
    "prefix_groups",
    "previous",
    "seconds",
    "segment",
    "set_expiry",
    "split_domain",
    "state_name",
    "timestamp",
    "url_groups",
    "validate",
    "with_client_info",
    "without_tokens",
]
