# SPDX-License-Identifier: Apache-2.0
"""A connection that lives outlives requests that fail.

Does:  hops are killed and started again, the endpoint does not answer, and the next Request of a connection that
       carries packets fails. It gets an error; the interfaces at both ends stay the very same, and no ping is lost.
       When the endpoint answers again, so does the connection; and one whose client never asks again ends in the end.
Place: whole meshes of programs with real packets.
State: a cluster per test.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from nsm_sdk.api import State
from nsm_sdk.errors import NsmError
from nsm_sdk.lab import PROGRAMS, Cluster, LabEndpoint, Mode, Node, ProgramHop
from nsm_sdk.lab.counts import ask
from nsm_sdk.lab.faults import go_on, stand_still
from nsm_sdk.lab.scenarios.stage import staged
from tests.mesh.modes import PASSING, URL, every_mode, run, steady, why_not
from tests.mesh.test_crashes import refreshed
from tests.run import MARK, unique

pytestmark = pytest.mark.netns

HOPS = ("registry", "manager", "forwarder")
SETS = [chosen for count in range(4) for chosen in itertools.combinations(HOPS, count)]
TIME = 1.0
"""Seconds of a Request that is to fail."""


@asynccontextmanager
async def stopped(nse: LabEndpoint) -> AsyncGenerator[None, None]:
    """Its process stands still."""
    stand_still(nse.hop)
    try:
        yield
    finally:
        go_on(nse.hop)


@asynccontextmanager
async def killed(nse: LabEndpoint) -> AsyncGenerator[None, None]:
    """Its process is gone, and comes back at the end."""
    await nse.kill()
    yield
    await nse.restart()


@asynccontextmanager
async def slow(nse: LabEndpoint) -> AsyncGenerator[None, None]:
    """It goes on when the caller has given up, and finds what was asked of it; for one Request."""
    hop = nse.hop
    assert isinstance(hop, ProgramHop)
    stand_still(hop)
    try:
        yield
    finally:
        go_on(hop)
        # What waits for it is dealt with before it takes another call.
        await ask(hop.settings["ADMIN_SOCKET"], "connections")


@asynccontextmanager
async def well(nse: LabEndpoint) -> AsyncGenerator[None, None]:
    """Nothing is wrong with it."""
    yield


Fault = Callable[[LabEndpoint], AbstractAsyncContextManager[None]]
FAULTS: dict[str, tuple[Fault, Fault]] = {"stopped": (stopped, well), "killed": (killed, well), "slow": (well, slow)}
"""What is wrong all the time, and what is wrong during each Request."""


async def start_again(cluster: Cluster, node: Node, hops: Sequence[str]) -> None:
    """Kill the hops of these kinds, all together, and start them again."""
    chosen = [{"registry": cluster.registry, "manager": node.manager, "forwarder": node.forwarder}[one] for one in hops]
    for hop in chosen:
        await hop.kill()
    for hop in chosen:
        await hop.restart()


def cells(every: bool) -> list[object]:
    """Sets of hops and faults: all of them, or some that stand for the others."""
    few = {
        ((), "stopped"),
        (("manager",), "stopped"),
        (("forwarder",), "killed"),
        (("manager", "forwarder"), "stopped"),
        (HOPS, "slow"),
    }
    return [
        pytest.param(hops, fault, id=f"{'+'.join(hops) or 'none'}-{fault}")
        for hops in SETS
        for fault in FAULTS
        if ((hops, fault) in few) is not every
    ]


@pytest.mark.parametrize(("hops", "fault"), cells(False))
def test_a_request_that_fails_takes_nothing_away(hops: Sequence[str], fault: str) -> None:
    by_hand(hops, fault)


@pytest.mark.long
@pytest.mark.parametrize(("hops", "fault"), cells(True))
def test_a_request_that_fails_takes_nothing_away_whoever_was_restarted(hops: Sequence[str], fault: str) -> None:
    by_hand(hops, fault)


def by_hand(hops: Sequence[str], fault: str) -> None:
    """A client that makes each call by itself."""
    lasting, passing = FAULTS[fault]

    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        nse = await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        conn = await nsc.request(URL)
        before = await nsc.pod.links(), await nse.pod.links()
        ip = conn.context.ip_context
        source, target = (one[0].partition("/")[0] for one in (ip.src_ip_addrs, ip.dst_ip_addrs))
        async with nsc.pod.pinging(target, source=source, interval=0.01) as pings:
            async with lasting(nse):
                await start_again(cluster, node, hops)
                for _ in range(2):
                    async with passing(nse):
                        with pytest.raises(NsmError):
                            await nsc.refresh(conn, timeout=TIME)
                    # What a hop undoes it undoes in the background, in two seconds at most.
                    for _ in range(10):
                        await asyncio.sleep(0.05)
                        assert (await nsc.pod.links(), await nse.pod.links()) == before
            conn = await refreshed(nsc, conn)
            assert (await nsc.pod.links(), await nse.pod.links()) == before
        assert pings.lost == 0
        await nsc.close(conn)
        assert await nsc.pod.links() == await nse.pod.links() == []
        assert (await cluster.counts()).of("connections") == 0

    run(PROGRAMS, scenario)


@pytest.mark.parametrize(("hops", "fault"), [(("manager", "forwarder"), "stopped")], ids=str)
async def test_a_client_that_heals_keeps_what_lives(hops: Sequence[str], fault: str) -> None:
    await by_program(hops, fault)


@pytest.mark.long
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("hops", SETS, ids=lambda hops: "+".join(hops) or "none")
async def test_a_client_that_heals_keeps_what_lives_whoever_was_restarted(hops: Sequence[str], fault: str) -> None:
    await by_program(hops, fault)


async def by_program(hops: Sequence[str], fault: str) -> None:
    """A client program with its usual probe, which refreshes and heals by itself."""
    if why_not(PROGRAMS):
        pytest.skip(why_not(PROGRAMS))
    lasting, passing = FAULTS[fault]
    async with staged(PROGRAMS, endpoints=1, name=f"l{MARK}") as stage, stage.client(unique("nsc-")) as client:
        nse = stage.serving(client)
        before = await client.pod.links(), await nse.pod.links()
        start = client.mark()
        async with lasting(nse), passing(nse):
            await start_again(stage.cluster, stage.node, hops)
            await client.event(start, "error")
            assert (await client.pod.links(), await nse.pod.links()) == before
        again = client.mark()
        await client.event(again, "healed", "refreshed")
        assert (await client.pod.links(), await nse.pod.links()) == before
        until = await client.there.settled()
        await client.back.settled()
        assert client.there.lost(start.at, until) == client.back.lost(start.at, until) == 0


@pytest.mark.parametrize(
    "hops", [("manager", "forwarder"), pytest.param(HOPS, marks=pytest.mark.long, id="+".join(HOPS))], ids="+".join
)
def test_what_was_taken_up_and_never_asked_for_again_ends_with_its_token(hops: Sequence[str]) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        nse = await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        empty = await steady(cluster)
        conn = await nsc.request(URL)
        async with stopped(nse):
            await start_again(cluster, node, hops)
            with pytest.raises(NsmError):
                await nsc.refresh(conn, timeout=TIME)
            await nsc.kill()
        for _ in range(200):
            if not await nsc.pod.links() and not (await cluster.counts()).of("connections"):
                break
            await asyncio.sleep(0.1)
        assert await nsc.pod.links() == await nse.pod.links() == []
        assert (await cluster.counts()).of("connections") == 0
        assert empty.of("connections") == 0

    run(PROGRAMS, scenario, token_life=6.0)


@every_mode("memory", "programs")
def test_a_path_that_leads_to_what_is_gone_locks_nobody_out(mode: Mode) -> None:
    """All hops have lost everything and the endpoint comes back as another: the former path is but a memory."""

    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        nse = await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        empty = await steady(cluster)
        conn = await nsc.request(URL)
        await nse.stop()
        await start_again(cluster, node, HOPS)
        other = await node.endpoint("nse-2", prefix="172.16.1.0/24", pod=nse.pod)
        with pytest.raises(NsmError, match="nse-1"):
            await nsc.refresh(conn)
        conn.network_service_endpoint_name = ""
        conn.ClearField("mechanism")
        conn.ClearField("context")
        conn.state = State.RESELECT_REQUESTED
        conn = await refreshed(nsc, conn)
        assert conn.network_service_endpoint_name == "nse-2"
        assert (await nsc.ping(conn)).ok
        assert len(await nsc.pod.links()) == len(await other.pod.links()) == 1
        await nsc.close(conn)
        assert await nsc.pod.links() == await other.pod.links() == []
        counts = await steady(cluster)
        assert counts.of("connections") == counts.of("addresses") == 0
        assert not [line for line in counts.new_since(empty, apart=PASSING) if not line.endswith(other.name)]

    run(mode, scenario)
