# SPDX-License-Identifier: Apache-2.0
"""What a connection's context carries: checks of extra prefixes and port ranges, policy routes, and client labels.

The field `from` of a policy route, a word of Python, is read and set here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from nsm_sdk.api._gen.connectioncontext import ExtraPrefixRequest, IpFamily, PolicyRoute, Route
from nsm_sdk.errors import InvalidRequest

_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


def check_extra_prefix_request(asked: ExtraPrefixRequest | None) -> None:
    """Raises InvalidRequest unless the request for extra prefixes can be answered."""
    if asked is None:
        raise InvalidRequest("an extra prefix request is missing", hint="leave it out of the list instead")
    if not asked.HasField("addr_family"):
        raise InvalidRequest("an extra prefix request has no address family", hint="set addr_family to IPV4 or IPV6")
    longest = 128 if asked.addr_family.family == IpFamily.IPV6 else 32
    if not 1 <= asked.prefix_len <= longest:
        raise InvalidRequest(
            f"an extra prefix request has prefix length {asked.prefix_len}", hint=f"give 1 to {longest}"
        )
    if not 1 <= asked.required_number <= asked.requested_number:
        raise InvalidRequest(
            f"an extra prefix request wants {asked.requested_number} prefixes, {asked.required_number} at least",
            hint="require 1 or more, and request as many or more",
        )


def port_range(text: str) -> tuple[int, int] | None:
    """First and last port of `80` or `80-90`; None for an empty text, which means every port. InvalidRequest else."""
    if not text:
        return None
    found = _PORTS.fullmatch(text)
    if found is not None:
        start, end = int(found[1]), int(found[2] or found[1])
        if start <= end <= 65535:
            return start, end
    raise InvalidRequest(f"{text[:64]!r} is not a range of ports", hint="write it like 80 or 80-90, up to 65535")


def policy_source(policy: PolicyRoute) -> str:
    """Whom the policy is for: an address or prefix; empty for everybody."""
    source: str = getattr(policy, "from")
    return source


def policy_route(
    *, source: str = "", proto: str = "", dst_port: str = "", src_port: str = "", routes: Iterable[Route] = ()
) -> PolicyRoute:
    """A policy route for packets from `source` (address or prefix), of a decimal IP protocol, to and from ports."""
    return PolicyRoute(proto=proto, dst_port=dst_port, src_port=src_port, routes=routes, **{"from": source})


VARIABLES: Mapping[str, str] = {"NODE_NAME": "nodeName", "POD_NAME": "podName", "CLUSTER_NAME": "clusterName"}
"""Variable of the environment -> label."""


def with_client_info(labels: Mapping[str, str], environment: Mapping[str, str]) -> dict[str, str]:
    """A copy of `labels` with those of the environment added; a label that is there is kept."""
    found = {label: environment[variable] for variable, label in VARIABLES.items() if variable in environment}
    return {**found, **labels}
