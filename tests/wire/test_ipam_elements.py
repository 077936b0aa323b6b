# SPDX-License-Identifier: Apache-2.0
"""IPAM elements answer like the Go programs' elements.

Does:  runs the recorded sequences of requests and closes through our elements and compares every connection.
Place: tables `ipam` and `elements`.
State: none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict

from nsm_sdk.api import Connection
from nsm_sdk.core import Layer, Next
from nsm_sdk.errors import FailedPrecondition, InvalidRequest, NsmError
from nsm_sdk.ipam import ExcludedPrefixes, PointToPointIpam, SinglePointIpam, ipam_chain, parse_groups
from tests.fixtures import rows
from tests.ipam.driver import Hop
from tests.wire.deviations import DEVIATIONS

Row = dict[str, Any]


def _element(text: str) -> Layer[Next]:
    name, _, rest = text.partition(" ")
    if name == "groupipam":
        return ipam_chain(parse_groups(rest.removeprefix("[").removesuffix("]")))
    kinds: dict[str, Callable[..., Layer[Next]]] = {
        "point2pointipam": PointToPointIpam,
        "singlepointipam": SinglePointIpam,
    }
    return kinds[name](*([] if rest == "without prefixes" else rest.split(", ")))


def _connection(entry: Row) -> Connection:
    return ParseDict(entry, Connection())


def _dict(conn: Connection) -> Row:
    found: Row = MessageToDict(conn)
    return found


@pytest.mark.parametrize("row", rows("ipam", "ipam_element"))
def test_ipam_element(row: Row) -> None:
    deviates = ("ipam", "ipam_element", row["case"]) in DEVIATIONS
    if row["element"].endswith("without prefixes"):
        with pytest.raises(InvalidRequest, match="required one or more prefixes"):
            _element(row["element"])
        assert deviates
        return
    hop = Hop(_element(row["element"]))
    differs = False
    for step in row["operations"]:
        if step["op"] == "close":
            hop.close(_connection(step["input"]))
        elif step["error"]:
            with pytest.raises(NsmError) as caught:
                hop.request(_connection(step["input"]))
            assert caught.value.message == step["error"]["text"]
            assert caught.value.hint
        else:
            differs = differs or _dict(hop.request(_connection(step["input"]))) != step["output"]
    assert differs == deviates


@pytest.mark.parametrize("row", rows("elements", "excludedprefixes_client"))
def test_excluded_prefixes_of_a_client(row: Row) -> None:
    hop = Hop(ExcludedPrefixes(row["awareness_groups"] or ()))
    for step in row["operations"]:
        src, dst = step["next_sets_src_and_dst"]

        def answer(conn: Connection, src: str = src, dst: str = dst) -> None:
            context = conn.context.ip_context
            context.src_ip_addrs.append(src)
            context.dst_ip_addrs.append(dst)
            context.src_routes.add(prefix=dst)
            context.src_routes.add(prefix="10.99.0.0/16")

        hop.below.answer = answer
        if step["error"]:
            with pytest.raises(FailedPrecondition) as caught:
                hop.request(_connection(step["input"]["connection"]))
            assert caught.value.message == step["error"]["text"]
        else:
            assert hop.request(_connection(step["input"]["connection"])) == _connection(step["output"])
        passed: Row = MessageToDict(hop.below.requests[-1])
        assert passed["connection"].get("context", {}).get("ipContext", {}).get("excludedPrefixes") == (
            step["passed_to_next"]["connection"]["context"]["ipContext"].get("excludedPrefixes")
        )
