# SPDX-License-Identifier: Apache-2.0
"""Close, whatever is missing.

Does:  succeeds with the endpoint, the registry or the pod gone; may be repeated; of a connection nobody knows it is
       fine and touches nobody else's; at a manager restarted a moment ago it still frees the endpoint.
Place: whole meshes.
State: a cluster per test.
"""

from __future__ import annotations

import asyncio

import pytest

from nsm_sdk.api import Connection
from nsm_sdk.lab import Cluster, Ground, Mode
from tests.mesh.modes import URL, every_mode, nothing_left, run, steady

MODES = ("inproc", "memory", "unix", "namespaces")


@every_mode(*MODES, "programs")
def test_repeated(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        other = await nsc.request("kernel://icmp-responder/other")
        before = await steady(cluster)
        conn = await nsc.request(URL)
        for _ in range(3):
            await nsc.close(conn)
        await nothing_left(cluster, before)
        assert (await nsc.ping(other)).ok

    run(mode, scenario)


@every_mode(*MODES)
def test_of_a_connection_that_nobody_knows(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        other = await nsc.request(URL)
        before = await steady(cluster)
        await nsc.close(Connection(id="never-heard-of", network_service="icmp-responder"))
        stranger = Connection()
        stranger.CopyFrom(other)
        stranger.id = "stranger"
        stranger.path.path_segments[0].id = "stranger"
        for number, segment in enumerate(stranger.path.path_segments[1:]):
            segment.id = f"stranger-{number}"
        await nsc.close(stranger)
        await nothing_left(cluster, before, "calls", "descriptors", "tasks (candidates)", "watchers")
        assert (await cluster.counts()).of("connections") == 4
        assert (await nsc.ping(other)).ok

    run(mode, scenario)


@every_mode(*MODES, "programs")
@pytest.mark.parametrize("gone", ["nse-1", "registry"])
def test_with_the_endpoint_or_the_registry_gone(mode: Mode, gone: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        conn = await nsc.request(URL)
        await cluster.kill(gone)
        await nsc.close(conn)
        if mode.ground is not Ground.SIMULATED:
            assert await nsc.pod.links() == []
        await nsc.close(conn)
        if gone == "registry":
            assert (await cluster.counts()).of("connections") == 0

    run(mode, scenario, dial_timeout=0.3)


@every_mode(*MODES)
@pytest.mark.parametrize("whose", ["nsc-1", "nse-1"])
def test_with_a_pod_gone(mode: Mode, whose: str) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        await nsc.close(await nsc.request(URL))
        before = await cluster.counts()
        conn = await nsc.request(URL)
        await cluster.pods[whose].remove()
        await nsc.close(conn)
        await nothing_left(cluster, before)

    run(mode, scenario)


@every_mode(*MODES, "programs")
@pytest.mark.parametrize("hop", ["nsmgr-node-1", "forwarder-node-1"])
def test_at_a_hop_restarted_a_moment_ago_the_endpoint_is_freed(mode: Mode, hop: str) -> None:
    """No later than the segment's expiry; the tokens of this mesh live for six seconds."""

    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        conn = await nsc.request(URL)
        await cluster.kill(hop)
        await cluster.restart(hop)
        await nsc.close(conn)
        # Programs of a busy machine take seconds to start; the wait ends as soon as the tokens have.
        for _ in range(200):
            if not (await cluster.counts()).of("connections"):
                break
            await asyncio.sleep(0.1)
        counts = await cluster.counts()
        assert (counts.of("connections"), counts.of("addresses")) == (0, 0)
        if mode.ground is not Ground.SIMULATED:
            assert await nsc.pod.links() == []

    run(mode, scenario, token_life=6.0)


@every_mode("inproc", "memory")
def test_while_a_hop_is_down_nothing_is_left_once_tokens_have_ended(mode: Mode) -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        await nsc.close(await nsc.request(URL))
        before = await cluster.counts()
        for hop in (node.manager, node.forwarder):
            conn = await nsc.request(URL)
            await hop.kill()
            await nsc.close(conn)
            await asyncio.sleep(30)
            await hop.restart()
            await asyncio.sleep(700)
            await nothing_left(cluster, before)

    run(mode, scenario)
