# SPDX-License-Identifier: Apache-2.0
"""Programs killed together and started again, and two of one name, with real interfaces; needs root.

What comes back has one interface and one address, whoever else was killed; what only bears the same name harms nobody.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from nsm_sdk.netlink import create_namespace, delete_namespace, probe_now, run_inside
from tests.programs.processes import Mesh, Process
from tests.run import MARK

ROLES = ("registry", "nsmgr", "forwarder", "nse", "nsc")
SETS = ["+".join(role for bit, role in enumerate(ROLES) if number >> bit & 1) for number in range(1, 32)]
USUAL = {"nsmgr+nsc", "nsmgr+forwarder+nsc", "registry+nsmgr+forwarder+nse+nsc"}
NOWHERE = "/dev/null/state"

pytestmark = [pytest.mark.netns, pytest.mark.slow]


@functools.cache
def _why_not() -> str:
    found = probe_now()
    lacking = [found[name] for name in ("namespaces", "veth") if not found.works(name)]
    return "; ".join(f"{one.name}: {one.reason}" for one in lacking)


@pytest.fixture
def spaces() -> Iterator[tuple[str, str, str]]:
    """Namespaces for two clients and an endpoint."""
    if _why_not():
        pytest.skip(_why_not())
    made = [create_namespace(prefix=MARK) for _ in range(3)]
    yield made[0], made[1], made[2]
    for name in made:
        delete_namespace(name)


def _interfaces(space: str) -> dict[str, int]:
    return run_inside(space, lambda: {name: index for index, name in socket.if_nameindex() if name != "lo"})


class Machine:
    """The five programs, each in its namespace."""

    def __init__(self, mesh: Mesh, near: str, far: str, *, keeps: bool = True) -> None:
        self.mesh = mesh
        self.keeps = keeps
        self.running: dict[str, Process] = {}
        self._own: dict[str, dict[str, Any]] = {
            "nse": {"netns": far, "cidr_prefix": "172.16.0.0/24"},
            "nsc": {"netns": near, "liveness_check_enabled": "false"},
        }

    async def start(self, *roles: str) -> None:
        for role in roles:
            lost: dict[str, Any] = {} if self.keeps or role not in ("nsmgr", "nse") else {"state_dir": NOWHERE}
            self.running[role] = await self.mesh.start(role, **self._own.get(role, {}), **lost)

    async def kill(self, *roles: str) -> None:
        """All at the same time, as a machine that loses them."""
        for role in roles:
            self.running[role].send(signal.SIGKILL)
        for role in roles:
            await self.running[role].ended()


def _cases() -> list[object]:
    found: list[object] = []
    for keeps in (True, False):
        for one in SETS:
            usual = one in USUAL and (keeps or one == "nsmgr+nsc")
            marks = [] if usual else [pytest.mark.long]
            found.append(pytest.param(one.split("+"), keeps, id=f"{one}-{'kept' if keeps else 'lost'}", marks=marks))
    return found


@pytest.mark.parametrize(("killed", "keeps"), _cases())
async def test_killed_together_and_connected_again(
    killed: list[str], keeps: bool, spaces: tuple[str, str, str]
) -> None:
    near, _, far = spaces
    async with Mesh(NSM_DATAPATH="kernel", NSM_MAX_TOKEN_LIFETIME="5m") as mesh:
        machine = Machine(mesh, near, far, keeps=keeps)
        await machine.start(*ROLES)
        before = await machine.running["nsc"].event("connected")
        await machine.kill(*killed)
        # The order of a machine that starts everything at once is nobody's to choose.
        await machine.start(*reversed([role for role in ROLES if role in killed]))
        if "nsc" in killed:
            line = await machine.running["nsc"].event("connected")
            assert line["interface"] == "nsm-1"
            assert list(_interfaces(near)) == ["nsm-1"]
            assert len(line["src"]) == len(line["dst"]) == 1
            assert await asyncio.to_thread(reaches, near, line)
            # What this connection has replaced is closed in the background.
            await until_one(far)
            assert await machine.running["nsc"].stop() == 0
            assert _interfaces(near) == _interfaces(far) == {}
        else:
            assert list(_interfaces(near)) == ["nsm-1"]
            assert await asyncio.to_thread(reaches, near, before)


async def until_one(space: str) -> None:
    """Interfaces that are being removed are seen going by the namespace itself."""
    while len(_interfaces(space)) != 1:  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def reaches(space: str, line: dict[str, list[str]]) -> bool:
    """Whether the endpoint's address answers from the client's namespace."""
    from tests.programs.test_kernel import _ping, _plain

    return _ping(space, _plain(line["src"]), _plain(line["dst"]))


async def test_a_second_living_client_of_a_name_is_refused(spaces: tuple[str, str, str]) -> None:
    near, other, far = spaces
    async with Mesh(NSM_DATAPATH="kernel") as mesh:
        machine = Machine(mesh, near, far)
        await machine.start(*ROLES)
        before = await machine.running["nsc"].event("connected")
        links = _interfaces(near), _interfaces(far)
        second = await mesh.start("nsc", netns=other)
        for _ in range(3):
            refused = await second.event("error")
            assert refused["code"] == "ALREADY_EXISTS"
            assert "'nsc' lives in network namespace" in refused["message"]
            assert near in refused["message"]
            assert "NSM_NAME" in refused["hint"]
        assert (_interfaces(near), _interfaces(far), _interfaces(other)) == (*links, {})
        assert await asyncio.to_thread(reaches, near, before)
        assert not machine.running["nsc"].events("healing")
        # The refused one leaves without a word to anybody; or, when the first is gone, takes its place.
        await machine.kill("nsc")
        line = await second.event("connected")
        assert await asyncio.to_thread(reaches, other, line)
        assert (_interfaces(near), list(_interfaces(other))) == ({}, ["nsm-1"])
        assert await second.stop() == 0
        assert _interfaces(other) == _interfaces(far) == {}


async def test_a_refused_client_that_leaves_takes_nothing_along(spaces: tuple[str, str, str]) -> None:
    near, other, far = spaces
    async with Mesh(NSM_DATAPATH="kernel") as mesh:
        machine = Machine(mesh, near, far)
        await machine.start(*ROLES)
        await machine.running["nsc"].event("connected")
        await machine.kill("nsmgr", "forwarder")
        await machine.start("nsmgr", "forwarder")
        before = await machine.running["nsc"].event("healed")
        links = _interfaces(near), _interfaces(far)
        second = await mesh.start("nsc", netns=other)
        await second.event("error", code="ALREADY_EXISTS")
        assert await second.stop() == 0
        assert (_interfaces(near), _interfaces(far), _interfaces(other)) == (*links, {})
        assert await asyncio.to_thread(reaches, near, before)
