# SPDX-License-Identifier: Apache-2.0
"""No address has two owners, whatever clients and endpoints do.

Does:  drives an IPAM element with requests, refreshes, failures below, exclusions, forged addresses and closes in any
       order, and checks after every step who has what; at the end everything is free again.
Place: property tests of the elements of `nsm_sdk.ipam`.
State: none.
"""

from __future__ import annotations

from ipaddress import IPv4Address, ip_interface

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nsm_sdk.api import Connection
from nsm_sdk.core import Element
from nsm_sdk.errors import Exhausted, Unavailable
from nsm_sdk.ipam import PointToPointIpam, SinglePointIpam
from nsm_sdk.ipam.addresses import readable_networks
from tests.ipam.driver import Hop, connection

ROOM = "10.0.0.0/28"
INSIDE = [IPv4Address(f"10.0.0.{number}") for number in range(16)]

ids = st.sampled_from("abcdef")
masks = st.sampled_from(["/32", "/28", "/24"])
brought = st.lists(
    st.one_of(
        st.builds(lambda address, mask: f"{address}{mask}", st.sampled_from(INSIDE), masks),
        st.sampled_from(["192.168.0.1/32", "fd00::1/128", "rubbish", ""]),
    ),
    max_size=4,
)
exclusions = st.lists(st.sampled_from(["10.0.0.0/30", "10.0.0.0/32", "10.0.0.3/32", "10.0.0.8/29", "bad"]), max_size=2)


def _fail(conn: Connection) -> None:
    raise Unavailable("nobody is there")


def _room(hop: Hop) -> int:
    """How many connections still fit; they stay."""
    for number in range(20):
        try:
            hop.request(connection(f"new {number} {id(hop)}"))
        except Exhausted:
            return number
    raise AssertionError("the pool has no end")


class IpamMachine(RuleBasedStateMachine):
    """One endpoint, a few clients."""

    element: type[PointToPointIpam | SinglePointIpam]
    mask: str
    both_sides: bool
    spare: int
    """Addresses that the endpoint may have moved away from for itself."""

    @initialize()
    def begin(self) -> None:
        element: Element = self.element(ROOM)
        self.hop = Hop(element)
        self.answers: dict[str, Connection] = {}
        self.moving: set[str] = set()

    def _ours(self, conn: Connection) -> set[IPv4Address]:
        """Addresses of the room with the element's mask: those that it is answerable for."""
        context = conn.context.ip_context
        found = set()
        for text in (*context.src_ip_addrs, *(context.dst_ip_addrs if self.both_sides else ())):
            if text.endswith(self.mask) and text.startswith("10.0.0."):
                found.add(ip_interface(text).ip)
        return {address for address in found if isinstance(address, IPv4Address)}

    @rule(id_=ids, src=brought, dst=brought, excluded=exclusions, fails=st.booleans())
    def request(self, id_: str, src: list[str], dst: list[str], excluded: list[str], fails: bool) -> None:
        self._request(connection(id_, src=tuple(src), dst=tuple(dst), excluded=tuple(excluded)), fails)

    @precondition(lambda self: self.answers)
    @rule(data=st.data(), excluded=exclusions, fails=st.booleans())
    def refresh(self, data: st.DataObject, excluded: list[str], fails: bool) -> None:
        known = self.answers[data.draw(st.sampled_from(sorted(self.answers)))]
        again = Connection()
        again.CopyFrom(known)
        del again.context.ip_context.excluded_prefixes[:]
        again.context.ip_context.excluded_prefixes.extend(excluded)
        answer = self._request(again, fails)
        if any(address in net for net in readable_networks(excluded) for address in self._ours(known)):
            # a move that failed below may go on with the next request
            self.moving.add(known.id)
        elif answer is not None and known.id not in self.moving:
            assert self._ours(answer) == self._ours(known)

    def _request(self, conn: Connection, fails: bool) -> Connection | None:
        self.hop.below.answer = _fail if fails else lambda conn: None
        try:
            answer = self.hop.request(conn)
        except (Exhausted, Unavailable):
            if conn.context.ip_context.excluded_prefixes:
                self.moving.add(conn.id)
            return None
        self.answers[conn.id] = answer
        assert self._ours(answer)
        return answer

    @rule(id_=ids, fails=st.booleans())
    def close(self, id_: str, fails: bool) -> None:
        self.hop.below.answer = _fail if fails else lambda conn: None
        self.moving.discard(id_)
        conn = self.answers.pop(id_, connection(id_))
        if fails:
            with pytest.raises(Unavailable):
                self.hop.close(conn)
        else:
            self.hop.close(conn)

    @invariant()
    def no_address_has_two_owners(self) -> None:
        seen: set[IPv4Address] = set()
        for conn in getattr(self, "answers", {}).values():
            mine = self._ours(conn)
            assert mine.isdisjoint(seen)
            seen |= mine

    def teardown(self) -> None:
        if not hasattr(self, "hop"):
            return
        self.hop.below.answer = lambda conn: None
        for id_ in list(self.hop.states.states):
            self.hop.close(connection(id_))
        fresh = Hop(self.element(ROOM))
        whole = _room(fresh)
        assert whole - self.spare <= _room(self.hop) <= whole


class PointMachine(IpamMachine):
    """Pairs."""

    element = PointToPointIpam
    mask = "/32"
    both_sides = True
    spare = 0


class SingleMachine(IpamMachine):
    """Single addresses."""

    element = SinglePointIpam
    mask = "/28"
    both_sides = False
    spare = 1


PointMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
SingleMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestPairs = PointMachine.TestCase
TestSingles = SingleMachine.TestCase
