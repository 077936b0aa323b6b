# SPDX-License-Identifier: Apache-2.0
"""A refresh with another context changes both interfaces in place.

Does:  for random pairs of contexts, with a restart of the forwarder between them or without: the interfaces are the
       same ones, what is there is what the second context says, what the application has put on them stays, and no
       ping between two addresses that both contexts have is lost meanwhile.
Place: KernelDatapath with a real kernel.
State: namespaces of one test.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyroute2 import IPRoute

from nsm_sdk.errors import AlreadyExists, FailedPrecondition, InvalidRequest
from nsm_sdk.mechanisms import CLIENT_SIDE, ENDPOINT_SIDE, Observed, Rule, Tag, desired, diff
from nsm_sdk.mechanisms.desired import placed
from nsm_sdk.mechanisms.model import Add
from nsm_sdk.mechanisms.ports import Joint
from nsm_sdk.netlink import run_inside
from tests.contexts import CONTEXTS, PLAIN, fill
from tests.datapath.conftest import World, apply_to, echo, echo_channel
from tests.untrusted.sizes import FACTOR

pytestmark = pytest.mark.netns


def joint(world: World, context: dict[str, Any], **names: str) -> Joint:
    made = world.joint(1, **names)
    fill(made.connection, context)
    return made


def theirs(space: str, name: str, with_addresses: bool) -> None:
    """What an application does with the interface that it was given."""

    def run() -> None:
        with IPRoute() as ip:
            [at] = ip.link_lookup(ifname=name)
            if with_addresses:
                ip.addr("add", index=at, address="192.0.2.7", prefixlen=32)
                ip.addr("add", index=at, address="10.0.0.77", prefixlen=24)
                ip.addr("add", index=at, address="fd00:77::1", prefixlen=64, flags=2)
                ip.route("add", dst="198.18.0.0/15", oif=at, prefsrc="192.0.2.7", scope=253)
                ip.route("add", dst="198.51.99.0/24", oif=at, gateway="10.0.0.99")
                ip.route("add", dst="fd00:80::/64", oif=at, gateway="fd00:77::9", prefsrc="fd00:77::1")
            ip.route("add", dst="198.51.100.0/24", oif=at, scope=253, priority=7)
            ip.route("add", dst="203.0.113.0/24", oif=at, gateway="10.0.0.98", flags=4, table=77)
            ip.route("add", dst="fd00:78::/64", oif=at)
            ip.route("add", dst="fd00:79::/64", oif=at, gateway="fd00::98", flags=4, priority=9)
            for text in ("10.0.0.66", "fd00::66"):
                ip.neigh("add", dst=text, lladdr="02:00:00:00:00:66", ifindex=at, state=0x80)

    run_inside(space, run)


def of_others(space: str, name: str) -> set[str]:
    """All that bears another protocol number than ours and the kernel's, in words."""

    def run() -> set[str]:
        found: set[str] = set()
        with IPRoute() as ip:
            [at] = ip.link_lookup(ifname=name)
            for one in ip.get_addr(index=at):
                if one.get_attr("IFA_ADDRESS") in ("192.0.2.7", "10.0.0.77", "fd00:77::1"):
                    found.add(f"address {one.get_attr('IFA_ADDRESS')}/{one['prefixlen']}")
            for family in (socket.AF_INET, socket.AF_INET6):
                for one in ip.get_routes(family=family):
                    if one["proto"] in (4, 3) and at == one.get_attr("RTA_OIF"):
                        keys = ("DST", "GATEWAY", "PREFSRC", "PRIORITY", "TABLE")
                        found.add(" ".join(f"{key} {one.get_attr('RTA_' + key)}" for key in keys))
            for one in ip.get_neighbours(ifindex=at):
                if one.get_attr("NDA_LLADDR") == "02:00:00:00:00:66":
                    found.add(f"neighbour {one.get_attr('NDA_DST')}")
        return found

    found: set[str] = run_inside(space, run)
    return found


class Pings:
    """Echo requests one after the other, over each pair in turn, as fast as they are answered."""

    def __init__(self, world: World, pairs: list[tuple[str, str]]) -> None:
        self.lost: list[tuple[str, str, str]] = []
        self._pairs = pairs
        self._rounds = 0
        self._changed = threading.Condition()
        self._end = not pairs
        self._sockets = run_inside(world.a, lambda: [echo_channel(source, 3.0) for source, _ in pairs])
        self._thread = threading.Thread(target=self._run, name="pings")

    def _run(self) -> None:
        number = 0
        while not self._end:
            for channel, (source, target) in zip(self._sockets, self._pairs, strict=True):
                number += 1
                why = echo(channel, target, number & 0xFFFF)
                if why:
                    self.lost.append((source, target, why))
                    self._end = True
            with self._changed:
                self._rounds += 1
                self._changed.notify_all()

    def round(self) -> None:
        """Waits until every pair has been pinged once more, from now on."""
        with self._changed:
            enough = self._rounds + 2
            self._changed.wait_for(lambda: self._end or self._rounds >= enough)

    @contextmanager
    def running(self) -> Iterator[None]:
        self._thread.start()
        try:
            self.round()
            yield
            self.round()
        finally:
            self._end = True
            self._thread.join()
            for channel in self._sockets:
                channel.close()


def is_as_wanted(world: World, wanted: Joint) -> None:
    for space, mechanism, role in ((world.a, wanted.near, CLIENT_SIDE), (world.b, wanted.far, ENDPOINT_SIDE)):
        tag = Tag(forwarder="fwd", role=role, segment="nsc-1", connection="fwd-1")
        want = desired(wanted.connection, mechanism, tag)
        seen = world.see(space, want.name, tag.tables)
        if role == ENDPOINT_SIDE:
            assert not seen.rules
        assert diff(placed(want, seen), seen) == []


def bare(addresses: list[str]) -> set[str]:
    return {text.partition("/")[0] for text in addresses}


# what has gone wrong, or would with less care: a rule that comes and one that goes, rules that change their rank,
# another prefix length, the first of two addresses of a network, the last address, another MAC
KNOWN: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {"policies": [3]}, False),
    ({"policies": [3]}, {}, False),
    ({"policies": [0, 3]}, {"policies": [3, 4]}, True),
    ({}, {"src4": ["10.0.0.1/24"], "src6": ["fd00::1/64"]}, False),
    ({"src4": ["10.0.0.1/24", "10.0.0.2/24"]}, {"src4": ["10.0.0.2/24"]}, True),
    ({"src4": ["10.0.0.2/24"]}, {"src4": []}, False),
    ({"src6": ["fd00::1/64"]}, {"src6": []}, False),
    ({}, {"macs": ("02:00:00:00:01:01", "02:00:00:00:01:02")}, True),
    ({"payload": "ETHERNET"}, {"macs": ("02:00:00:00:01:01", "02:00:00:00:01:02"), "payload": "ETHERNET"}, False),
    ({"payload": "ETHERNET"}, {"macs": ("", "02:00:00:00:01:02")}, False),
]


@pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize(("first", "second", "addresses"), KNOWN)
async def test_a_change_of_context_is_made_in_place(
    world: World, first: dict[str, Any], second: dict[str, Any], addresses: bool, restart: bool
) -> None:
    await in_place(world, {**PLAIN, **first}, {**PLAIN, **second}, addresses=addresses, restart=restart)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40 * FACTOR)
@given(first=CONTEXTS, second=CONTEXTS, restart=st.booleans(), addresses=st.booleans())
async def test_any_change_of_context_is_made_in_place(
    world: World, first: dict[str, Any], second: dict[str, Any], restart: bool, addresses: bool
) -> None:
    await in_place(world, first, second, addresses=addresses, restart=restart)


async def in_place(
    world: World, first: dict[str, Any], second: dict[str, Any], *, addresses: bool, restart: bool
) -> None:
    """Connects with `first`, refreshes with `second`; `addresses`: the application has some of its own."""
    datapath = await world.datapath()
    await datapath.join(joint(world, first))
    before = {space: world.links(space)[name].index for space, name in ((world.a, "near-1"), (world.b, "far-1"))}
    for space, name in ((world.a, "near-1"), (world.b, "far-1")):
        theirs(space, name, addresses)
    made = [of_others(world.a, "near-1"), of_others(world.b, "far-1")]
    pairs = [
        (source, target)
        for family in "46"
        for source in sorted(bare(first["src" + family]) & bare(second["src" + family]))
        for target in sorted(bare(first["dst" + family]) & bare(second["dst" + family]))
    ]
    pings = Pings(world, pairs)
    with pings.running():
        if restart:
            datapath = await world.datapath()
        wanted = joint(world, second)
        await datapath.join(wanted)
    assert not pings.lost
    assert before == {
        space: world.links(space)[name].index for space, name in ((world.a, "near-1"), (world.b, "far-1"))
    }
    is_as_wanted(world, wanted)
    assert [of_others(world.a, "near-1"), of_others(world.b, "far-1")] == made
    await datapath.part(wanted.connection)
    assert not world.links(world.a)
    assert not world.links(world.b)


async def test_another_name_is_given_in_place(world: World) -> None:
    datapath = await world.datapath()
    await datapath.join(joint(world, PLAIN))
    theirs(world.a, "near-1", True)
    made, index = of_others(world.a, "near-1"), world.links(world.a)["near-1"].index
    for name in ("other", "near-1"):
        await datapath.join(joint(world, PLAIN, near=name))
        assert {link.name: link.index for link in world.links(world.a).values()} == {name: index}
        assert of_others(world.a, name) == made
    await datapath.join(world.joint(2, near="taken"))
    with pytest.raises(AlreadyExists, match="'taken' exists already"):
        await datapath.join(joint(world, PLAIN, near="taken"))
    assert world.links(world.a)["near-1"].index == index
    assert world.ping(world.a, "10.0.0.1", "10.0.0.9")


async def test_ends_in_one_namespace_that_change_names(world: World) -> None:
    datapath = await world.datapath()
    await datapath.join(joint(world, PLAIN, b=world.a, near="one", far="two"))
    await datapath.join(joint(world, PLAIN, b=world.a, near="two", far="one"))
    links = world.links(world.a)
    assert set(links) == {"one", "two"}
    assert ":server:" in links["two"].alias


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"mtu": 1000}, FailedPrecondition),
        ({"mtu": 70_000}, InvalidRequest),
        ({"routes": ["nonsense"]}, InvalidRequest),
        ({"neighbours": [("10.0.0.50", "ff:ff:ff:ff:ff:ff")]}, InvalidRequest),
    ],
)
async def test_a_context_that_is_refused_leaves_what_was_there(
    world: World, bad: dict[str, Any], error: type[Exception]
) -> None:
    datapath = await world.datapath()
    await datapath.join(joint(world, PLAIN))
    before = world.see(world.a, "near-1"), world.see(world.b, "far-1")
    with pytest.raises(error):
        await datapath.join(joint(world, {**PLAIN, **bad, "src4": ["10.0.0.3/32"]}))
    assert (world.see(world.a, "near-1"), world.see(world.b, "far-1")) == before


async def test_rules_that_a_killed_forwarder_left_go_with_the_connection(world: World) -> None:
    """The policies had gone from the context, and the forwarder stopped before it had removed their rules."""
    with_rules, without = joint(world, {**PLAIN, "policies": [0, 3]}), joint(world, PLAIN)
    datapath = await world.datapath()
    await datapath.join(with_rules)
    await datapath.join(without)
    tables = Tag(forwarder="fwd", role=CLIENT_SIDE, segment="nsc-1", connection="fwd-1").tables
    left = Rule(family=4, priority=10_001, table=tables[1], src="10.0.0.0", src_prefix=8)
    apply_to(world.a, "near-1", Add(left))
    fresh = await world.datapath()
    assert await fresh.sweep() == ["fwd-1"]
    assert world.see(world.a, "", tables) == Observed()


@pytest.mark.parametrize(
    ("first", "second", "sources"),
    [
        ({}, {"src4": ["10.0.0.1/24"], "src6": ["fd00::1/64"]}, {"10.0.0.1", "fd00::1"}),
        ({"src4": ["10.0.0.2/24", "10.0.0.1/24"]}, {"src4": ["10.0.0.1/24"]}, {"10.0.0.1", "fd00::1"}),
        ({"src6": ["fd00::1/64", "fd00::2/64"]}, {"src6": ["fd00::2/64", "fd00::1/128"]}, {"10.0.0.1", "fd00::1"}),
        ({}, {"src4": ["10.0.0.3/32"], "src6": ["fd00::2/64"]}, {None}),
        ({}, {"src4": [], "src6": []}, {None}),
    ],
)
async def test_a_route_of_the_application_with_an_address_of_ours(
    world: World, first: dict[str, Any], second: dict[str, Any], sources: set[str | None]
) -> None:
    """It keeps its preferred source as long as that is an address of the interface, and stays without it."""

    def add() -> None:
        with IPRoute() as ip:
            [at] = ip.link_lookup(ifname="near-1")
            ip.route("add", dst="198.18.0.0/15", oif=at, prefsrc="10.0.0.1", scope=253)
            ip.route("add", dst="fd00:80::/64", oif=at, prefsrc="fd00::1")

    def found() -> dict[str, str | None]:
        with IPRoute() as ip:
            routes = [one for family in (socket.AF_INET, socket.AF_INET6) for one in ip.get_routes(family=family)]
            return {one.get_attr("RTA_DST"): one.get_attr("RTA_PREFSRC") for one in routes if one["proto"] in (3, 4)}

    datapath = await world.datapath()
    await datapath.join(joint(world, {**PLAIN, **first}))
    run_inside(world.a, add)
    await datapath.join(joint(world, {**PLAIN, **second}))
    left = run_inside(world.a, found)
    assert set(left) == {"198.18.0.0", "fd00:80::"}
    assert set(left.values()) == sources


EVERY_KIND = """
nexthop add id 5 dev near-1
nexthop add id 6 via 10.0.0.9 dev near-1 onlink
route add 198.18.0.0/16 nhid 5
route add 198.19.0.0/16 nhid 6
route add 198.20.0.0/16 dev near-1 mtu 1300 advmss 1000
route add 198.21.0.0/16 nexthop dev near-1 weight 2 nexthop via 10.0.0.9 dev near-1 onlink
route add 198.22.0.0/16 via 10.0.0.9 dev near-1 onlink table 100 metric 33 proto bird
route add 198.23.0.0/16 tos 0x10 dev near-1
route add unreachable 198.24.0.0/16
route add broadcast 198.25.0.255 dev near-1
-6 route add fd00:81::/64 nexthop via fd00::9 dev near-1 onlink nexthop via fd00::8 dev near-1 onlink
-6 route add fd00:82::/64 dev near-1 mtu 1290 pref high expires 9000
"""


@pytest.mark.skipif(shutil.which("ip") is None, reason="the tool `ip` (iproute2) is not installed")
async def test_routes_of_every_kind_stay_as_they_are(world: World) -> None:
    def ip(*words: str) -> str:
        return subprocess.run(["ip", "-n", world.a, *words], check=True, capture_output=True, text=True).stdout

    def shown() -> list[str]:
        lines = ip("-4", "route", "show", "table", "all") + ip("-6", "route", "show", "table", "all")
        lines = re.sub(r"\n\s*nexthop", " nexthop", lines)
        # the seconds that are left
        lines = re.sub(r"expires \d+sec", "expires", lines)
        return sorted(line.strip() for line in lines.splitlines() if "198." in line or "fd00:8" in line)

    datapath = await world.datapath()
    await datapath.join(joint(world, PLAIN))
    for line in EVERY_KIND.strip().splitlines():
        ip(*line.split())
    before = shown()
    assert len(before) == 10
    changes: list[dict[str, Any]] = [
        {"src4": ["10.0.0.3/24"]},
        {"src4": []},
        {"src4": ["10.0.0.1/24"], "src6": ["fd00::1/64"]},
        {"macs": ("02:00:00:00:01:01", "")},
        {"src4": [], "src6": []},
        {},
    ]
    for change in changes:
        await datapath.join(joint(world, {**PLAIN, **change}))
        assert shown() == before
