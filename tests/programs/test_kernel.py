# SPDX-License-Identifier: Apache-2.0
"""The same programs with real interfaces, in network namespaces; needs root."""

from __future__ import annotations

import functools
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from nsm_sdk.netlink import create_namespace, delete_namespace, probe_now, run_inside
from tests.programs.processes import Mesh, Process
from tests.run import MARK


@functools.cache
def _why_not() -> str:
    found = probe_now()
    lacking = [found[name] for name in ("namespaces", "veth") if not found.works(name)]
    return "; ".join(f"{one.name}: {one.reason}" for one in lacking)


@pytest.fixture
def spaces() -> Iterator[tuple[str, str]]:
    """A namespace for the client and one for the endpoint."""
    if _why_not():
        pytest.skip(_why_not())
    made = [create_namespace(prefix=MARK) for _ in range(2)]
    yield made[0], made[1]
    for name in made:
        delete_namespace(name)


pytestmark = pytest.mark.netns


def _interfaces(space: str) -> set[str]:
    return run_inside(space, lambda: {name for _, name in socket.if_nameindex() if name != "lo"})


def _ping(space: str, source: str, target: str) -> bool:
    return run_inside(space, lambda: _echo(source, target))


def _echo(source: str, target: str) -> bool:
    """One ICMP echo over a raw socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_ICMP) as channel:
        channel.bind((source, 0))
        channel.settimeout(5)
        identity = os.getpid() & 0xFFFF
        plain = struct.pack("!BBHHH", 8, 0, 0, identity, 1)
        total = sum(struct.unpack("!4H", plain))
        total = (total >> 16) + (total & 0xFFFF)
        channel.sendto(struct.pack("!BBHHH", 8, 0, ~total & 0xFFFF, identity, 1), (target, 0))
        while True:
            data, sender = channel.recvfrom(2048)
            if sender[0] == target and data[20] == 0 and data[24:26] == struct.pack("!H", identity):
                return True


def _plain(addresses: list[str]) -> str:
    return addresses[0].partition("/")[0]


async def _start(mesh: Mesh, spaces: tuple[str, str]) -> tuple[Process, ...]:
    nsmgr = await mesh.start("nsmgr", registry_url="")
    forwarder = await mesh.start("forwarder")
    nse = await mesh.start("nse", netns=spaces[1], cidr_prefix="172.16.0.0/24,fd00::/64")
    nsc = await mesh.start("nsc", netns=spaces[0])
    return nsmgr, forwarder, nse, nsc


async def test_packets_flow_both_ways_until_the_client_leaves(spaces: tuple[str, str]) -> None:
    near, far = spaces
    async with Mesh(NSM_DATAPATH="kernel") as mesh:
        _, forwarder, nse, nsc = await _start(mesh, spaces)
        line = await nsc.event("connected")
        assert line["interface"] == "nsm-1"
        assert _interfaces(near) == {"nsm-1"}
        assert _ping(near, _plain(line["src"]), _plain(line["dst"]))
        assert _ping(far, _plain(line["dst"]), _plain(line["src"]))
        assert await nsc.stop() == 0
        assert _interfaces(near) == _interfaces(far) == set()
        for process in (nse, forwarder):
            assert await process.stop() == 0


async def test_a_forwarder_that_was_killed_adopts_what_it_had_built(spaces: tuple[str, str]) -> None:
    near, _ = spaces
    async with Mesh(NSM_DATAPATH="kernel") as mesh:
        _, forwarder, _, nsc = await _start(mesh, spaces)
        line = await nsc.event("connected")
        index = run_inside(near, lambda: socket.if_nametoindex("nsm-1"))
        await forwarder.kill()
        assert _ping(near, _plain(line["src"]), _plain(line["dst"]))
        await nsc.event("healing")
        await mesh.start("forwarder")
        healed = await nsc.event("healed")
        assert (healed["moved"], healed["src"], healed["dst"]) == (False, line["src"], line["dst"])
        # It is the very same interface.
        assert run_inside(near, lambda: socket.if_nametoindex("nsm-1")) == index
        assert _ping(near, _plain(line["src"]), _plain(line["dst"]))
        assert await nsc.stop() == 0
        assert _interfaces(near) == set()


async def test_a_client_that_was_killed_resumes_with_its_interface(spaces: tuple[str, str]) -> None:
    near, _ = spaces
    async with Mesh(NSM_DATAPATH="kernel") as mesh:
        *_, nse, nsc = await _start(mesh, spaces)
        line = await nsc.event("connected")
        index = run_inside(near, lambda: socket.if_nametoindex("nsm-1"))
        await nsc.kill()
        # By another name, as after a restart in the own namespace, which is named by the process.
        nsc = await mesh.start("nsc", netns=f"/run/netns/../netns/{near}")
        again = await nsc.event("connected")
        assert (again["src"], again["path"]) == (line["src"], line["path"])
        assert run_inside(near, lambda: socket.if_nametoindex("nsm-1")) == index
        await nse.event("refreshed")
        assert await nsc.stop() == 0
        assert _interfaces(near) == set()


async def test_a_datapath_that_dies_is_noticed_and_healed(spaces: tuple[str, str]) -> None:
    near, far = spaces
    async with Mesh(NSM_DATAPATH="kernel") as mesh:
        *_, nsc = await _start(mesh, spaces)
        await nsc.event("connected")
        run_inside(far, _down)
        healing = await nsc.event("healing")
        assert healing["why"]
        healed = await nsc.event("healed")
        assert _ping(near, _plain(healed["src"]), _plain(healed["dst"]))


def _down() -> None:
    """What `ip link set down` does to every interface here."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        for _, name in socket.if_nameindex():
            if name != "lo":
                fcntl.ioctl(channel, 0x8914, struct.pack("16sH14x", name.encode(), 0))
