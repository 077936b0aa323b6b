# SPDX-License-Identifier: Apache-2.0
"""The elements of this room: negotiation, selection, translation, forwarding.

Does:  drives each alone and then a forwarder's whole chain, over the simulated datapath and over a kernel in memory.
Place: nsm_sdk.mechanisms; doubles from the test kit.
State: none.
"""

from __future__ import annotations

import os

import pytest

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import Call, Chain, Next
from nsm_sdk.errors import (
    AlreadyExists,
    DeadlineExceeded,
    Exhausted,
    FailedPrecondition,
    InvalidRequest,
    NsmError,
    TemplateError,
    Unavailable,
    pushback,
)
from nsm_sdk.mechanisms import (
    Datapath,
    Join,
    Joint,
    KernelClient,
    KernelDatapath,
    KernelServer,
    Mechanisms,
    SimulatedDatapath,
)
from nsm_sdk.netlink import FakeNetlink
from nsm_sdk.testing import FailTimes, Probe, drive, rig, sample_request, virtual_time

A, B = "file:///run/netns/a", "file:///run/netns/b"


def asked(*types: str, id: str = "connection-1") -> Request:
    request = sample_request(id)
    del request.mechanism_preferences[:]
    request.mechanism_preferences.extend(Mechanism(cls="LOCAL", type=one) for one in types)
    return request


class FarSide(Probe):
    """An endpoint: chooses KERNEL in namespace `b`, gives addresses."""

    def __init__(self, mechanism: str = "KERNEL", *, name: str = "far") -> None:
        super().__init__()
        self.mechanism = mechanism
        self.name = name
        self.address = "10.0.0.1"

    async def on_request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = request.connection
        conn.mechanism.CopyFrom(Mechanism(cls="LOCAL", type=self.mechanism))
        conn.mechanism.parameters["inodeURL"] = B
        conn.mechanism.parameters["name"] = self.name
        ip = conn.context.ip_context
        del ip.src_ip_addrs[:]
        ip.src_ip_addrs.append(self.address)
        return conn


def forwarder(datapath: Datapath, far: Probe) -> Chain[Next]:
    return Chain("forwarder", Join(datapath), far)


def near(id: str = "connection-1", name: str = "near") -> Request:
    request = asked("KERNEL", id=id)
    request.mechanism_preferences[0].parameters["inodeURL"] = A
    request.mechanism_preferences[0].parameters["name"] = name
    return request


@virtual_time
async def test_a_client_offers_one_kernel_interface_with_a_stable_name() -> None:
    seen = Probe()
    driven = await drive(KernelClient(namespace=A), seen, request=asked(), requests=3)
    names = set()
    for call in seen.seen.calls[:3]:
        [preference] = call.message.mechanism_preferences
        assert (preference.cls, preference.type, preference.parameters["inodeURL"]) == ("LOCAL", "KERNEL", A)
        names.add(preference.parameters["name"])
    assert len(names) == 1
    assert names.pop().startswith("service-1-")
    assert not driven.left


@virtual_time
async def test_a_client_names_its_process_unless_told() -> None:
    seen = Probe()
    await drive(KernelClient(), seen, request=asked("MEMIF", "KERNEL"))
    preferences = seen.seen.calls[0].message.mechanism_preferences
    assert [one.type for one in preferences] == ["MEMIF", "KERNEL"]
    assert preferences[1].parameters["inodeURL"] == f"file:///proc/{os.getpid()}/ns/net"


@virtual_time
async def test_a_name_over_fifteen_bytes_is_refused_at_the_client() -> None:
    request = asked("KERNEL")
    request.mechanism_preferences[0].parameters["name"] = "sixteen-bytes-xx"
    with pytest.raises(InvalidRequest, match="16 bytes"):
        await drive(KernelClient(), request=request)


@virtual_time
async def test_an_endpoint_gives_names_that_differ() -> None:
    names = iter(["one", "one", "one", "two", "one"])
    server = Mechanisms(KERNEL=KernelServer(namespace=B, name=lambda service: next(names)))
    async with rig(server) as bench:
        first = await bench.request(asked("KERNEL", id="c1"))
        second = await bench.request(asked("KERNEL", id="c2"))
        assert [first.mechanism.parameters["name"], second.mechanism.parameters["name"]] == ["one", "two"]
        assert first.mechanism.parameters["inodeURL"] == B
        await bench.close(first)
        third = await bench.request(asked("KERNEL", id="c3"))
        assert third.mechanism.parameters["name"] == "one"
        await bench.close(second)
        await bench.close(third)
        assert not await bench.left()


@virtual_time
async def test_an_endpoint_without_free_names() -> None:
    async with rig(Mechanisms(KERNEL=KernelServer(name=lambda service: "only"))) as bench:
        first = await bench.request(asked("KERNEL", id="c1"))
        with pytest.raises(Exhausted):
            await bench.request(asked("KERNEL", id="c2"))
        await bench.close(first)
        assert not await bench.left()


@virtual_time
async def test_the_first_preference_that_works_is_chosen() -> None:
    memif, below = FailTimes(5, Unavailable("no memif today")), Probe()
    chain = Mechanisms(MEMIF=Chain("memif", memif), KERNEL=KernelServer(namespace=B))
    async with rig(chain, below) as bench:
        conn = await bench.request(asked("VFIO", "MEMIF", "KERNEL"))
        assert conn.mechanism.type == "KERNEL"
        await bench.close(conn)
        assert not await bench.left()
    assert [call.verb for call in below.seen.calls] == ["close", "request", "close"]


@virtual_time
async def test_one_failure_is_told_as_it_is_and_several_together() -> None:
    alone = Unavailable("no memif today")
    with pytest.raises(Unavailable) as caught:
        await drive(Mechanisms(MEMIF=FailTimes(9, alone)), request=asked("MEMIF"))
    assert caught.value.message == alone.message
    two = Mechanisms(MEMIF=FailTimes(9, Unavailable("x")), VFIO=FailTimes(9, AlreadyExists("y")))
    with pytest.raises(AlreadyExists, match="requested mechanism: MEMIF: x; VFIO: y"):
        await drive(two, request=asked("MEMIF", "VFIO"))


@virtual_time
async def test_several_failures_together_keep_the_pause_that_was_asked_for() -> None:
    overrun = Mechanisms(
        MEMIF=FailTimes(9, Unavailable("x", retry_after=3.0)), VFIO=FailTimes(9, Unavailable("y", retry_after=1.0))
    )
    with pytest.raises(Unavailable) as caught:
        await drive(overrun, request=asked("MEMIF", "VFIO"))
    assert pushback(caught.value) == 3.0
    template = Mechanisms(MEMIF=FailTimes(9, Unavailable("x")), VFIO=FailTimes(9, TemplateError("y", line=2)))
    with pytest.raises(InvalidRequest, match="MEMIF: x; VFIO: line 2"):
        await drive(template, request=asked("MEMIF", "VFIO"))


@virtual_time
async def test_time_that_ran_out_ends_the_walk() -> None:
    second = Probe()
    chain = Mechanisms(MEMIF=FailTimes(9, DeadlineExceeded("late")), KERNEL=second)
    with pytest.raises(DeadlineExceeded):
        await drive(chain, request=asked("MEMIF", "KERNEL"))
    assert not [call for call in second.seen.calls if call.verb == "request"]


@pytest.mark.parametrize("types", [(), ("VXLAN",), ("kernel",)])
def test_nothing_that_is_supported(types: tuple[str, ...]) -> None:
    @virtual_time
    async def run() -> None:
        with pytest.raises(FailedPrecondition, match="cannot support any of the requested mechanism") as caught:
            await drive(Mechanisms(KERNEL=KernelServer()), request=asked(*types))
        assert "KERNEL" in caught.value.hint

    run()


@virtual_time
async def test_a_chosen_mechanism_that_is_unknown() -> None:
    request = asked("KERNEL")
    request.connection.mechanism.type = "SMOKE"
    with pytest.raises(InvalidRequest, match="unsupported mechanism: 'SMOKE'"):
        await drive(Mechanisms(KERNEL=KernelServer()), request=request)


@virtual_time
async def test_close_with_an_unknown_mechanism_goes_on() -> None:
    below = Probe()
    async with rig(Mechanisms(KERNEL=KernelServer()), below, check=False) as bench:
        conn = await bench.request(asked("KERNEL"))
        conn.mechanism.type = "SMOKE"
        await bench.close(conn)
        assert not await bench.left()
    assert [call.verb for call in below.seen.calls] == ["request", "close"]


@virtual_time
async def test_metrics_name_the_interface() -> None:
    driven = await drive(Mechanisms(KERNEL=KernelServer(name=lambda service: "nse-1")), request=asked("KERNEL"))
    assert driven.connection is not None
    assert driven.connection.path.path_segments[0].metrics["server_interface"] == "KERNEL/nse-1"


@virtual_time
async def test_a_forwarder_keeps_the_two_legs_apart() -> None:
    datapath, far = SimulatedDatapath(), FarSide()
    async with rig(forwarder(datapath, far)) as bench:
        conn = await bench.request(near())
        assert (conn.mechanism.parameters["name"], conn.mechanism.parameters["inodeURL"]) == ("near", A)
        first = far.seen.calls[0].message
        assert not first.connection.HasField("mechanism")
        assert [one.type for one in first.mechanism_preferences] == ["KERNEL"]
        assert not first.mechanism_preferences[0].parameters
        assert list(datapath.ids()) == ["connection-1"]
        again = near()
        again.connection.CopyFrom(conn)
        await bench.request(again)
        assert far.seen.calls[1].message.connection.mechanism.parameters["name"] == "far"
        await bench.close()
        assert far.seen.calls[2].message.mechanism.parameters["name"] == "far"
        assert not list(datapath.ids())
        assert not await bench.left()


@pytest.mark.parametrize("mechanism", ["VXLAN", "MEMIF", "kernel", ""])
@pytest.mark.parametrize("simulated", [False, True])
def test_a_far_side_that_cannot_be_joined(mechanism: str, simulated: bool) -> None:
    @virtual_time
    async def run() -> None:
        netlink = FakeNetlink()
        spaces = [netlink.add_namespace(A), netlink.add_namespace(B)]
        datapath = SimulatedDatapath() if simulated else KernelDatapath(netlink, name="fwd")
        async with rig(forwarder(datapath, FarSide(mechanism))) as bench:
            if simulated and not mechanism:
                # What makes no interface needs none to be named.
                await bench.request(near())
                await bench.close()
                assert not await bench.left()
                return
            with pytest.raises(FailedPrecondition, match="cannot be joined") as refused:
                await bench.request(near())
            assert refused.value.hint == "this forwarder joins KERNEL with KERNEL"
            assert not await bench.left()
        assert not list(datapath.ids())
        assert not any(space.links() for space in spaces)

    run()


@virtual_time
async def test_a_forwarder_plumbs_repairs_and_removes() -> None:
    netlink = FakeNetlink()
    a, b = netlink.add_namespace(A), netlink.add_namespace(B)
    far = FarSide()
    async with rig(forwarder(KernelDatapath(netlink, name="fwd"), far)) as bench:
        conn = await bench.request(near())
        assert [one.name for one in (*a.links(), *b.links())] == ["near", "far"]
        a.delete_link(a.links()[0].index)
        again = Request(connection=conn, mechanism_preferences=near().mechanism_preferences)
        await bench.request(again)
        assert [one.name for one in (*a.links(), *b.links())] == ["near", "far"]
        await bench.close()
        assert not a.links()
        assert not b.links()
        await bench.close(conn)
        assert not await bench.left()


@virtual_time
async def test_a_first_request_that_cannot_be_plumbed_leaves_nothing() -> None:
    netlink = FakeNetlink()
    a, b = netlink.add_namespace(A), netlink.add_namespace(B)
    far = FarSide()
    datapath = KernelDatapath(netlink, name="fwd")
    async with rig(forwarder(datapath, far)) as bench:
        first = await bench.request(near("c1"))
        far.name = "far-2"
        with pytest.raises(AlreadyExists, match="'near' exists already"):
            await bench.request(near("c2"))
        far.name, far.address = "far-3", "nonsense"
        with pytest.raises(InvalidRequest, match="nonsense"):
            await bench.request(near("c3", "near-3"))
        await bench.left()
        assert [one.name for one in (*a.links(), *b.links())] == ["near", "far"]
        assert list(datapath.ids()) == ["c1"]
        assert [call.verb for call in far.seen.calls].count("close") == 2
        await bench.close(first)
        assert not await bench.left()


class Broken(SimulatedDatapath):
    """Cannot part."""

    async def part(self, conn: Connection) -> None:
        raise Unavailable("the kernel sleeps")


@virtual_time
async def test_a_close_that_fails_here_still_closes_below() -> None:
    far = FarSide()
    async with rig(forwarder(Broken(), far)) as bench:
        await bench.request(near())
        with pytest.raises(NsmError):
            await bench.close()
    assert "close" in [call.verb for call in far.seen.calls]


@virtual_time
async def test_the_simulated_datapath_refuses_what_a_real_one_would() -> None:
    datapath = SimulatedDatapath()
    long = Mechanism(type="KERNEL", parameters={"name": "sixteen-bytes-xx"})
    with pytest.raises(InvalidRequest):
        await datapath.join(Joint(connection=Connection(id="c"), near=long, far=Mechanism()))
    await datapath.join(Joint(connection=Connection(id="c"), near=Mechanism(), far=Mechanism()))
    assert list(datapath.ids()) == ["c"]
    assert await datapath.sweep() == []


@virtual_time
async def test_a_datapath_that_makes_nothing_takes_mechanisms_as_they_come() -> None:
    seen: list[list[str]] = []

    class Silent(Probe):
        """An endpoint that speaks of no mechanism."""

        async def on_request(self, call: Call, request: Request, next: Next) -> Connection:
            seen.append([one.type for one in request.mechanism_preferences])
            assert not request.connection.HasField("mechanism")
            request.connection.ClearField("mechanism")
            return request.connection

    def chain() -> Chain[Next]:
        return Chain("forwarder", Join(SimulatedDatapath()), Silent())

    driven = await drive(chain(), request=asked("KERNEL"), requests=2)
    assert driven.connection is not None
    assert driven.connection.mechanism.type == "KERNEL"
    driven = await drive(chain(), request=asked())
    assert driven.connection is not None
    assert not driven.connection.HasField("mechanism")
    assert seen == [["KERNEL"], ["KERNEL"], []]
    with pytest.raises(FailedPrecondition):
        await drive(chain(), request=asked("MEMIF"))
