# SPDX-License-Identifier: Apache-2.0
"""How to build each exported connection element for the contract suite.

Does:  one entry per element that cannot be built without arguments, or that owns fields, or that leaves points out.
       Elements without an entry are built as `Kind()`.
Place: read by test_contract.py. Add your element here when its test says so.
State: none.
"""

from __future__ import annotations

from nsm_sdk.api import KERNEL, LOCAL, Connection, Mechanism, NetworkServiceEndpoint, Request
from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY, format_time
from nsm_sdk.core import Bound, Call, Element, Next
from nsm_sdk.elements import (
    Case,
    ClientInfo,
    ClientUrl,
    Connect,
    Hub,
    Monitor,
    OnIdle,
    Passthrough,
    Retry,
    SetExtraContext,
    SwapDestinationIp,
    SwapSourceIp,
    Switch,
    Tell,
    Timeout,
    TrimPath,
    UpdatePath,
    otherwise,
)
from nsm_sdk.heal import Resume
from nsm_sdk.ipam import ClusterPrefixes, ExcludedPrefixes, PointToPointIpam, SinglePointIpam
from nsm_sdk.mechanisms import (
    CrossConnect,
    Join,
    KernelClient,
    KernelServer,
    Mechanisms,
    SimulatedDatapath,
    TranslateMechanism,
)
from nsm_sdk.netlink import FakeNetlink
from nsm_sdk.registry import FORWARDER, Candidates, Discover, DiscoverForwarder
from nsm_sdk.registry.matching import POINT_TO_POINT
from nsm_sdk.security import Authenticate, Insecure, TokenGenerator, UpdateToken
from nsm_sdk.testing import (
    START_WALL,
    Contract,
    Entries,
    at_hop,
    bind_registry,
    sample_endpoint,
    sample_request,
    sample_service,
)

IPAM = "connection.context.ip_context"
PATH = "connection.path"
MECHANISM = "connection.mechanism"
PREFERENCES = "mechanism_preferences"
FOLLOWS = frozenset({"candidates"})
"""The candidate cache goes on following what was once looked for."""


class Towards(Element):
    """Chooses the next hop."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        call.url = "inproc://next"
        return await next.request(call, request)


class Chooses(Element):
    """Takes the first mechanism preference, as an endpoint does."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if not request.connection.mechanism.type:
            request.connection.mechanism.CopyFrom(request.mechanism_preferences[0])
        return await next.request(call, request)


class Tokens:
    """Makes one token."""

    def token(self, peer: str) -> tuple[str, float]:
        return "very.secret.token", START_WALL + 600.0


class Sends(Element):
    """Stands for a caller that sends its token."""

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        tokens = TokenGenerator(Insecure("nsc", "a"), max_lifetime=600.0, wall=lambda: START_WALL)
        token, expires = tokens.token("")
        call.metadata = {TOKEN_KEY: token, EXPIRES_KEY: format_time(expires)}
        return await next.request(call, request)


def candidates() -> Candidates:
    """A registry with one service, one endpoint, and one forwarder."""

    def offered(wanted: NetworkServiceEndpoint, entry: NetworkServiceEndpoint) -> bool:
        names = wanted.network_service_names
        return wanted.name in ("", entry.name) and set(names) <= set(entry.network_service_names)

    forwarder = sample_endpoint("forwarder-1", service=FORWARDER, url="inproc://forwarder-1")
    forwarder.network_service_labels[FORWARDER].labels.update(POINT_TO_POINT)
    return Candidates(
        Bound(
            ns=bind_registry(Entries(sample_service())),
            nse=bind_registry(Entries(sample_endpoint(), forwarder, matches=offered)),
        )
    )


def with_mechanism() -> Request:
    """A request that has its mechanism already."""
    request = sample_request()
    request.connection.mechanism.CopyFrom(
        Mechanism(cls=LOCAL, type=KERNEL, parameters={"name": "nsm-1", "inodeURL": "file:///run/netns/client"})
    )
    return request


def second_hop() -> Request:
    """A request at the hop after the client's; the client's token lives ten minutes."""
    return at_hop(sample_request(), expires=START_WALL + 600.0)


TABLE: dict[str, Contract] = {
    # -- nsm_sdk.elements -----------------------------------------------------------------------------------------
    "ClientInfo": Contract(
        factory=lambda: ClientInfo({"NODE_NAME": "node-1", "PASSWORD": "hunter2"}),
        owns=frozenset({"connection.labels"}),
        secrets=("hunter2",),
    ),
    "ClientUrl": Contract(factory=lambda: ClientUrl("tcp://next:1")),
    "Connect": Contract(
        joined=lambda below: Connect(lambda url: Bound(connection=below)),
        above=lambda: (Towards(),),
    ),
    "Monitor": Contract(factory=lambda: Monitor(Hub())),
    # its idle timer is the role's, not a connection's
    "OnIdle": Contract(factory=lambda: OnIdle(0.0, lambda: None)),
    "Passthrough": Contract(
        factory=lambda: Passthrough({"app": "firewall"}),
        owns=frozenset({"connection.labels", "connection.network_service_endpoint_name"}),
    ),
    "Retry": Contract(factory=lambda: Retry(attempts=1)),
    "SetExtraContext": Contract(
        factory=lambda: SetExtraContext({"a": "1"}), owns=frozenset({"connection.context.extra_context"})
    ),
    "SwapDestinationIp": Contract(factory=lambda: SwapDestinationIp({}), owns=frozenset({MECHANISM, PREFERENCES})),
    "SwapSourceIp": Contract(factory=lambda: SwapSourceIp({}), owns=frozenset({MECHANISM, PREFERENCES})),
    "Switch": Contract(factory=lambda: Switch("s", Case("only", otherwise, ClientUrl("tcp://next:1")))),
    "Tell": Contract(factory=lambda: Tell(lambda cause, conn, up: None)),
    "Timeout": Contract(factory=Timeout, request=second_hop),
    "TrimPath": Contract(factory=TrimPath, owns=frozenset({PATH})),
    "UpdatePath": Contract(
        factory=lambda: UpdatePath("hop"),
        owns=frozenset({PATH, "connection.id"}),
        skips={7: "it refuses a connection whose path cannot be right"},
    ),
    # -- nsm_sdk.heal ---------------------------------------------------------------------------------------------
    "Resume": Contract(factory=lambda: Resume("nsc", manager="inproc://manager", dial=lambda url: Bound())),
    # -- nsm_sdk.ipam ---------------------------------------------------------------------------------------------
    "ClusterPrefixes": Contract(factory=lambda: ClusterPrefixes(lambda: ["10.0.0.0/8"]), owns=frozenset({IPAM})),
    "ExcludedPrefixes": Contract(factory=ExcludedPrefixes, owns=frozenset({IPAM})),
    "PointToPointIpam": Contract(factory=lambda: PointToPointIpam("10.0.0.0/24"), owns=frozenset({IPAM})),
    "SinglePointIpam": Contract(factory=lambda: SinglePointIpam("10.0.0.0/24"), owns=frozenset({IPAM})),
    # -- nsm_sdk.mechanisms ---------------------------------------------------------------------------------------
    "CrossConnect": Contract(
        factory=lambda: CrossConnect(FakeNetlink(create=True)),
        request=with_mechanism,
        below=lambda: (TranslateMechanism(), KernelClient(), Chooses()),
    ),
    "Join": Contract(
        factory=lambda: Join(SimulatedDatapath()),
        request=with_mechanism,
        below=lambda: (Chooses(),),
        owns=frozenset({PREFERENCES, MECHANISM, PATH}),
    ),
    "KernelClient": Contract(factory=KernelClient, owns=frozenset({PREFERENCES})),
    "Mechanisms": Contract(
        factory=lambda: Mechanisms(KERNEL=KernelServer()), owns=frozenset({MECHANISM, PATH, PREFERENCES})
    ),
    "TranslateMechanism": Contract(
        factory=TranslateMechanism,
        request=with_mechanism,
        below=lambda: (KernelClient(), Chooses()),
        owns=frozenset({PREFERENCES, MECHANISM, PATH}),
    ),
    # -- nsm_sdk.registry -----------------------------------------------------------------------------------------
    "Discover": Contract(
        factory=lambda: Discover(candidates()),
        owns=frozenset({"connection.network_service_endpoint_name"}),
        keeps=FOLLOWS,
    ),
    "DiscoverForwarder": Contract(factory=lambda: DiscoverForwarder(candidates()), keeps=FOLLOWS),
    # -- nsm_sdk.security -----------------------------------------------------------------------------------------
    "Authenticate": Contract(factory=Authenticate, request=second_hop, above=lambda: (Sends(),)),
    "UpdateToken": Contract(
        factory=lambda: UpdateToken(Tokens()),
        request=second_hop,
        owns=frozenset({PATH}),
        secrets=("very.secret.token",),
    ),
}
