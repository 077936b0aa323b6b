# SPDX-License-Identifier: Apache-2.0
"""Netlink messages as bytes, both ways, for the few objects that a forwarder makes.

Does:  gathers the requests, the answers and their frame under one name. pyroute2 does the same for every object there
       is, at 74 us a message against 3 us; one connection takes fifteen messages and the kernel about a millisecond for
       all, so these few are written out. The tests compare both with each other.
Place: under the socket; pure.
State: none.
"""

from __future__ import annotations

from nsm_sdk.netlink.answers import (
    address,
    address_of_others,
    is_local,
    link,
    neighbour,
    neighbour_of_others,
    route,
    route_of_others,
    route_source,
    rule,
)
from nsm_sdk.netlink.frame import (
    DELADDR,
    DELLINK,
    DUMP_INTERRUPTED,
    NEWADDR,
    NEWLINK,
    NLMSG_DONE,
    NLMSG_ERROR,
    attribute,
    number,
    read_attributes,
    split,
)
from nsm_sdk.netlink.requests import (
    again_address,
    again_neighbour,
    again_route,
    delete_link,
    dump_addresses,
    dump_links,
    dump_neighbours,
    dump_routes,
    dump_rules,
    encode,
    get_link,
    look_after,
    look_up,
    pair,
)

__all__ = [
    "DELADDR",
    "DELLINK",
    "DUMP_INTERRUPTED",
    "NEWADDR",
    "NEWLINK",
    "NLMSG_DONE",
    "NLMSG_ERROR",
    "address",
    "address_of_others",
    "again_address",
    "again_neighbour",
    "again_route",
    "attribute",
    "delete_link",
    "dump_addresses",
    "dump_links",
    "dump_neighbours",
    "dump_routes",
    "dump_rules",
    "encode",
    "get_link",
    "is_local",
    "link",
    "look_after",
    "look_up",
    "neighbour",
    "neighbour_of_others",
    "number",
    "pair",
    "read_attributes",
    "route",
    "route_of_others",
    "route_source",
    "rule",
    "split",
]
