# SPDX-License-Identifier: Apache-2.0
"""Pools answer like the Go programs' pools.

Does:  runs the recorded sequences of pool operations and compares every answer and what is left.
Place: tables `ipam` and `names`.
State: none.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from nsm_sdk.errors import Exhausted, InvalidRequest, NotFound, NsmError
from nsm_sdk.ipam.addresses import (
    Address,
    Network,
    host_network,
    parse_address,
    parse_interface,
    parse_network,
    readable_networks,
)
from nsm_sdk.ipam.groups import broadcast_address, network_address, parse_groups
from nsm_sdk.ipam.pools import DualPool, IpPool
from nsm_sdk.ipam.prefixes import ExtraPrefixes, PrefixPool
from tests.fixtures import rows
from tests.wire.deviations import DEVIATIONS

Row = dict[str, Any]


def _host(address: Address) -> str:
    return str(host_network(address))


def _pool_operation(pool: IpPool, operation: str, arg: list[str]) -> object:
    """What the operation answers, in the form of the table."""
    if operation == "pull":
        return str(pool.pull())
    if operation == "pull_p2p":
        return [_host(address) for address in pool.pull_pair(readable_networks(arg))]
    if operation == "pull_ip":
        return _host(pool.pull_address(parse_interface(arg[0]).ip, readable_networks(arg[1:])))
    if operation == "contains":
        return ip_address(arg[0]) in pool
    if operation == "contains_net":
        return parse_network(arg[0]) in pool
    if operation == "empty":
        return pool.is_empty
    if operation == "exclude":
        for net in readable_networks(arg):
            pool.exclude(net)
    else:
        _add(pool, operation, arg)
    return None


def _add(pool: IpPool, operation: str, arg: list[str]) -> None:
    assert operation in {"add", "add_net", "new"}
    for text in arg:
        item = parse_network(text) if operation == "add_net" else parse_address(text)
        try:
            if item is not None:
                pool.add(item)
        except InvalidRequest:
            assert item is not None
            assert item.version != pool.version


@pytest.mark.parametrize("row", rows("ipam", "ippool"))
def test_ippool(row: Row) -> None:
    if "operations" not in row:
        with pytest.raises(InvalidRequest):
            IpPool(row["new_with_net"])
        return
    pool = IpPool(row["new_with_net"])
    differs = []
    for step in row["operations"]:
        told: str | None = None
        try:
            result: object = _pool_operation(pool, step["op"], step.get("arg") or [])
        except InvalidRequest as refused:
            # their two parsers differ by an article
            told = refused.message.replace("as CIDR", "as a CIDR")
            result = None
        except (Exhausted, NotFound) as refused:
            told = refused.message
            result = [None, None] if step["op"] == "pull_p2p" else None
        assert told == (step.get("error") or {}).get("text")
        assert result == step.get("result")
        if [str(net) for net in pool.prefixes()] != (step["prefixes"] or []):
            differs.append(step["op"])
    assert bool(differs) == (("ipam", "ippool", row["case"]) in DEVIATIONS)


@pytest.mark.parametrize("row", rows("ipam", "ippool_prefixpool"))
def test_dual_pool(row: Row) -> None:
    pool = DualPool(*(row["prefixes"] or []))
    for text in row["add"] or []:
        pool.add(parse_network(text))
    for text in row["exclude"] or []:
        if row["exclude_error"]:
            with pytest.raises(InvalidRequest) as caught:
                parse_network(text)
            assert caught.value.message == row["exclude_error"]["text"]
        else:
            pool.exclude(parse_network(text))
    assert [str(net) for net in pool.prefixes()] == (row["output"] or [])


def _texts(nets: list[Network]) -> set[str]:
    return {str(net) for net in nets}


@pytest.mark.parametrize("row", rows("ipam", "prefixpool_extract"))
def test_prefix_pool_extract(row: Row) -> None:
    pool = PrefixPool(*row["prefixes"])
    extra = [_wish(request) for request in row["extra_prefix_requests"]]
    for step in row["extract"]:
        if step["error"]:
            with pytest.raises(NsmError):
                _extract(pool, step["connection"], row["family"], extra)
        else:
            lease = _extract(pool, step["connection"], row["family"], extra)
            assert (str(lease.src), str(lease.dst)) == (step["src"], step["dst"])
            assert [str(net) for net in lease.extra] == (step["requested"] or [])
        assert _texts(pool.prefixes()) == set(step["prefixes_left"])
    with pytest.raises(NotFound):
        pool.release("unknown")
    if row["release_c1"]["error"]:
        with pytest.raises(NotFound):
            pool.release("c1")
    else:
        pool.release("c1")
    assert _texts(pool.prefixes()) == set(row["release_c1"]["prefixes"])


def _wish(request: Row) -> Callable[[], ExtraPrefixes]:
    def build() -> ExtraPrefixes:
        if "addrFamily" not in request:
            raise InvalidRequest("the extra prefix request names no family")
        return ExtraPrefixes(
            version=6 if request["addrFamily"].get("family") == "IPV6" else 4,
            length=request.get("prefixLen", 0),
            required=request.get("requiredNumber", 0),
            requested=request.get("requestedNumber", 0),
        )

    return build


def _extract(pool: PrefixPool, connection: str, family: str, extra: list[Callable[[], ExtraPrefixes]]) -> Any:
    return pool.extract(connection, 6 if family == "IPV6" else 4, [build() for build in extra])


@pytest.mark.parametrize("row", rows("ipam", "prefixpool_exclude"))
def test_prefix_pool_exclude(row: Row) -> None:
    pool = PrefixPool(*row["prefixes"])
    before = _texts(pool.prefixes())
    if ("ipam", "prefixpool_exclude", row["case"]) in DEVIATIONS:
        with pytest.raises((Exhausted, InvalidRequest)):
            pool.exclude(row["exclude"])
        assert _texts(pool.prefixes()) == before
        return
    removed = pool.exclude(row["exclude"])
    assert _texts(removed) == set(row["removed"])
    assert _texts(pool.prefixes()) == set(row["prefixes_after"])
    pool.release_excluded(removed)
    assert _texts(pool.prefixes()) == set(row["prefixes_after_release"])


@pytest.mark.parametrize("row", rows("ipam", "prefixpool_intersect"))
def test_prefix_pool_intersect(row: Row) -> None:
    pool = PrefixPool(row["pool"])
    if row["error"]:
        with pytest.raises(InvalidRequest) as caught:
            pool.intersects(row["prefix"])
        assert caught.value.message == row["error"]["text"]
    else:
        assert pool.intersects(row["prefix"]) is row["result"]


@pytest.mark.parametrize("row", rows("ipam", "prefixpool_new"))
def test_prefix_pool_new(row: Row) -> None:
    if row["error"]:
        with pytest.raises(InvalidRequest) as caught:
            PrefixPool(row["input"])
        assert caught.value.message == row["error"]["text"]
    else:
        assert PrefixPool(row["input"]).prefixes() == [parse_network(row["input"])]


@pytest.mark.parametrize("row", rows("names", "cidr_groups"))
def test_cidr_groups(row: Row) -> None:
    if row["error"]:
        with pytest.raises(InvalidRequest):
            parse_groups(row["input"])
    else:
        assert [[str(net) for net in group] for group in parse_groups(row["input"])] == row["output"]


@pytest.mark.parametrize("row", rows("names", "cidr"))
def test_cidr_ends(row: Row) -> None:
    net = parse_network(row["input"])
    assert str(network_address(net)) == row["network_address"]
    if "panic" in row:
        assert broadcast_address(net) is None
    elif ("names", "cidr", row["case"]) in DEVIATIONS:
        assert str(broadcast_address(net)) != row["broadcast_address"]
    else:
        assert str(broadcast_address(net)) == row["broadcast_address"]
