# SPDX-License-Identifier: Apache-2.0
"""A forwarder's negotiation over any datapath: what it accepts, what it offers, what stands when a try fails.

Does:  a datapath with tunnels, in memory, plays both forwarders of a connection between machines; requests with several
       preferences fail over what an earlier run has joined, and over another client's connection.
Place: Join.
State: a folder for the records of one test.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import anyio
import pytest

from nsm_sdk.api import Connection, Mechanism, Request
from nsm_sdk.core import Call, Chain, Next
from nsm_sdk.errors import AlreadyExists, FailedPrecondition, InvalidRequest, Unavailable
from nsm_sdk.mechanisms import Join, Joint, KernelDatapath, SimulatedDatapath
from nsm_sdk.netlink import FakeNetlink
from nsm_sdk.testing import Probe, rig, sample_request, virtual_time

A, B = "file:///run/netns/a", "file:///run/netns/b"
KERNEL = Mechanism(cls="LOCAL", type="KERNEL")
TUNNELS = {"IP": ("WIREGUARD", "VXLAN"), "ETHERNET": ("VXLAN",)}


class Tunnels(SimulatedDatapath):
    """Kernel interfaces and tunnels, of which those of the types `broken` cannot be built."""

    needs_mechanism = True

    def __init__(self, address: str, *, broken: Iterable[str] = ()) -> None:
        super().__init__()
        self.address = address
        self.broken = set(broken)
        self.numbers: dict[str, str] = {}
        self.joints: list[tuple[Mechanism, Mechanism]] = []

    def _tunnels(self, conn: Connection) -> tuple[str, ...]:
        return TUNNELS[conn.payload or "IP"]

    def accepted(self, conn: Connection) -> Collection[str]:
        return ("KERNEL", *self._tunnels(conn))

    def offered(self, conn: Connection) -> Sequence[Mechanism]:
        if conn.mechanism.type != "KERNEL":
            return (KERNEL,)
        kinds = [one for one in self._tunnels(conn) if one not in self.broken]
        tunnels = [Mechanism(cls="REMOTE", type=one, parameters={"src_ip": self.address}) for one in kinds]
        return (KERNEL, *tunnels)

    async def admit(self, conn: Connection) -> list[str]:
        kind, parameters = conn.mechanism.type, conn.mechanism.parameters
        if kind in self.broken:
            raise Unavailable(f"no {kind} here")
        if kind != "KERNEL":
            parameters["dst_ip"] = self.address
            parameters["vni"] = self.numbers.setdefault(conn.id, str(len(self.numbers) + 1))
        return await super().admit(conn)

    async def join(self, joint: Joint) -> list[str]:
        copies = Mechanism(), Mechanism()
        for copy, one in zip(copies, (joint.near, joint.far), strict=True):
            copy.CopyFrom(one)
        self.joints.append(copies)
        return await super().join(joint)

    async def part(self, conn: Connection) -> None:
        self.numbers.pop(conn.id, None)
        await super().part(conn)


class FarSide(Probe):
    """Chooses the mechanism of type `kind`, with these parameters, or stays away."""

    def __init__(self, kind: str = "KERNEL", **parameters: str) -> None:
        super().__init__()
        self.chosen = Mechanism(cls="LOCAL" if kind == "KERNEL" else "REMOTE", type=kind, parameters=parameters)
        self.away = False

    async def on_request(self, call: Call, request: Request, next: Next) -> Connection:
        if self.away:
            raise Unavailable("the endpoint is away")
        request.connection.mechanism.CopyFrom(self.chosen)
        return request.connection

    def requests(self) -> list[Request]:
        return [call.message for call in self.seen.calls if call.verb == "request"]


def asked(*preferences: Mechanism, id: str = "connection-1", payload: str = "IP") -> Request:
    request = sample_request(id)
    request.connection.payload = payload
    del request.mechanism_preferences[:]
    request.mechanism_preferences.extend(preferences)
    return request


def kernel(url: str = A, name: str = "near") -> Mechanism:
    return Mechanism(cls="LOCAL", type="KERNEL", parameters={"inodeURL": url, "name": name})


def chain(datapath: SimulatedDatapath | KernelDatapath, far: Probe) -> Chain[Next]:
    return Chain("forwarder", Join(datapath), far)


@virtual_time
async def test_the_clients_forwarder_joins_an_interface_with_a_tunnel() -> None:
    datapath, far = Tunnels("192.0.2.1"), FarSide("VXLAN", src_ip="192.0.2.1", dst_ip="192.0.2.2", vni="7")
    async with rig(chain(datapath, far)) as bench:
        conn = await bench.request(asked(kernel()))
        assert conn.mechanism == kernel()
        [passed] = far.requests()
        assert not passed.connection.HasField("mechanism")
        assert [one.type for one in passed.mechanism_preferences] == ["KERNEL", "WIREGUARD", "VXLAN"]
        assert passed.mechanism_preferences[2].parameters == {"src_ip": "192.0.2.1"}
        assert datapath.joints == [(kernel(), far.chosen)]
        metrics = conn.path.path_segments[conn.path.index].metrics
        assert metrics["server_interface"] == "KERNEL/near"
        again = Request(connection=conn)
        await bench.request(again)
        assert far.requests()[1].connection.mechanism == far.chosen
        await bench.close()
        assert far.seen.calls[-1].message.mechanism == far.chosen
        assert not await bench.left()


@virtual_time
async def test_the_endpoints_forwarder_says_its_part_of_the_tunnel_and_keeps_to_it() -> None:
    datapath, far = Tunnels("192.0.2.2"), FarSide("KERNEL", inodeURL=B, name="far")
    tunnel = Mechanism(cls="REMOTE", type="VXLAN", parameters={"src_ip": "192.0.2.1"})
    async with rig(chain(datapath, far)) as bench:
        conn = await bench.request(asked(tunnel, payload="ETHERNET"))
        told = {"src_ip": "192.0.2.1", "dst_ip": "192.0.2.2", "vni": "1"}
        assert (conn.mechanism.type, dict(conn.mechanism.parameters)) == ("VXLAN", told)
        assert [one.type for one in far.requests()[0].mechanism_preferences] == ["KERNEL"]
        conn = await bench.request(Request(connection=conn))
        assert dict(conn.mechanism.parameters) == told
        assert [(dict(near.parameters), end.type) for near, end in datapath.joints] == [(told, "KERNEL")] * 2
        await bench.close()
        assert not datapath.numbers
        assert not await bench.left()


@virtual_time
async def test_payload_and_what_can_be_built_decide_what_is_offered() -> None:
    for payload, broken, kinds in (
        ("IP", (), ["KERNEL", "WIREGUARD", "VXLAN"]),
        ("ETHERNET", (), ["KERNEL", "VXLAN"]),
        ("IP", ("WIREGUARD",), ["KERNEL", "VXLAN"]),
    ):
        datapath, far = Tunnels("192.0.2.1", broken=broken), FarSide("KERNEL", inodeURL=B)
        async with rig(chain(datapath, far)) as bench:
            await bench.request(asked(kernel(), payload=payload))
            assert [one.type for one in far.requests()[0].mechanism_preferences] == kinds
            await bench.close()
            assert not await bench.left()


@virtual_time
async def test_the_clients_next_preference_is_tried_where_one_cannot_be_had() -> None:
    datapath, far = Tunnels("192.0.2.2", broken=["WIREGUARD"]), FarSide("KERNEL", inodeURL=B)
    wireguard, vxlan = (Mechanism(cls="REMOTE", type=one) for one in ("WIREGUARD", "VXLAN"))
    async with rig(chain(datapath, far)) as bench:
        conn = await bench.request(asked(wireguard, vxlan))
        assert conn.mechanism.type == "VXLAN"
        assert len(far.requests()) == 1
        await bench.close()
        assert not await bench.left()
        with pytest.raises(Unavailable, match="no WIREGUARD here"):
            await bench.request(asked(wireguard, id="connection-2"))
        with pytest.raises(FailedPrecondition, match="asked for: WIREGUARD") as refused:
            await bench.request(asked(wireguard, id="connection-3", payload="ETHERNET"))
        assert "KERNEL, VXLAN" in refused.value.hint
        chosen = asked(id="connection-4", payload="ETHERNET")
        chosen.connection.mechanism.type = "WIREGUARD"
        with pytest.raises(InvalidRequest, match="unsupported mechanism: 'WIREGUARD'"):
            await bench.request(chosen)
        assert not await bench.left()
        assert not datapath.numbers


@virtual_time
async def test_an_endpoint_that_chose_what_was_not_offered_is_closed_again() -> None:
    datapath, far = Tunnels("192.0.2.2"), FarSide("VXLAN")
    async with rig(chain(datapath, far)) as bench:
        with pytest.raises(FailedPrecondition, match="a client with VXLAN and an endpoint with VXLAN") as refused:
            await bench.request(asked(Mechanism(cls="REMOTE", type="VXLAN")))
        assert refused.value.hint == "this forwarder joins VXLAN with KERNEL"
        assert not await bench.left()
    assert [call.verb for call in far.seen.calls][-1] == "close"
    assert not list(datapath.ids())


@virtual_time
async def test_no_try_undoes_what_an_earlier_run_has_joined(tmp_path: Path) -> None:
    netlink = FakeNetlink()
    a, b = netlink.add_namespace(A), netlink.add_namespace(B)
    far = FarSide("KERNEL", inodeURL=B, name="far")
    both = (kernel(), kernel(name="other"))
    async with rig(chain(KernelDatapath(netlink, name="f", state=tmp_path), far)) as bench:
        await bench.request(asked(*both))
    before = [a.links(), b.links()]
    assert [one.name for one in (*a.links(), *b.links())] == ["near", "far"]
    far.away = True
    async with rig(chain(KernelDatapath(netlink, name="f", state=tmp_path), far)) as bench:
        with pytest.raises(Unavailable, match="the endpoint is away"):
            await bench.request(asked(*both))
        assert [a.links(), b.links()] == before
        assert [call.verb for call in far.seen.calls].count("close") == 0
        assert [one.connection.mechanism.parameters["name"] for one in far.requests()[1:]] == ["far", "far"]
        far.away = False
        await bench.request(asked(*both))
        assert [a.links(), b.links()] == before
        await bench.close()
        assert not await bench.left()
    assert not a.links()


class Taken(SimulatedDatapath):
    """Refuses a second client, and lists what it parted."""

    def __init__(self) -> None:
        super().__init__()
        self.parted: list[str] = []

    async def admit(self, conn: Connection) -> list[str]:
        raise AlreadyExists("another client of that name lives elsewhere")

    async def part(self, conn: Connection) -> None:
        self.parted.append(conn.id)


@virtual_time
async def test_no_try_undoes_what_another_client_has_under_the_same_id() -> None:
    datapath, far = Taken(), FarSide()
    async with rig(chain(datapath, far)) as bench:
        with pytest.raises(AlreadyExists, match="lives elsewhere"):
            await bench.request(asked(kernel(), kernel(B)))
        assert datapath.parted == []
        assert far.seen.calls == []
        # Nor does it when nobody has asked for it again, and it ends here.
        await anyio.sleep(120)
        assert not await bench.left()
        assert datapath.parted == []
