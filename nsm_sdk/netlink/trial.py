# SPDX-License-Identifier: Apache-2.0
"""Interfaces and tables made on trial, with pyroute2.

Does:  makes one interface of a kind, or one nftables table, and takes it away; an error of the kernel is an OSError.
Place: below `probe`, in a namespace that is thrown away. Not on the way of any packet, so pyroute2's time is no matter.
State: none.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from pyroute2 import IPRoute, NetlinkError
from pyroute2.nftables.main import NFTables

_SETTINGS: Final[Mapping[str, Mapping[str, Any]]] = {
    "veth": {"peer": "nsm-peer"},
    "vxlan": {"vxlan_id": 42},
    "vlan": {"vlan_id": 7},
    "vrf": {"vrf_table": 1042},
    "macvlan": {"macvlan_mode": "bridge"},
}


def route() -> IPRoute:
    """A socket in the namespace of this thread; close it."""
    return IPRoute()


def link(ip: IPRoute, kind: str) -> None:
    """Makes and deletes one interface; those that need a lower one get an end of a pair."""
    settings = dict(_SETTINGS.get(kind, {}))
    try:
        if kind in ("macvlan", "vlan", "ipvlan"):
            ip.link("add", ifname="nsm-lower", kind="veth", peer="nsm-peer")
            settings["link"] = ip.link_lookup(ifname="nsm-lower")[0]
        ip.link("add", ifname="nsm-try", kind=kind, **settings)
    except NetlinkError as error:
        raise _told(error) from error
    finally:
        for name in ("nsm-try", "nsm-lower"):
            for index in ip.link_lookup(ifname=name):
                ip.link("del", index=index)


def nftables() -> None:
    """One table, thrown away with its namespace."""
    try:
        with NFTables() as nft:
            nft.begin()
            nft.table("add", name="nsmprobe")
            nft.commit()
    except NetlinkError as error:
        raise _told(error) from error


def _told(error: NetlinkError) -> OSError:
    return OSError(error.code, os.strerror(error.code))
