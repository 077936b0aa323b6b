# SPDX-License-Identifier: Apache-2.0
"""Clusters, nodes, hops and pods.

Does:  everything ends with the cluster, also after a failure; names are used once; hops that do not run say so; a crash
       leaves what a stop cleans up.
Place: `nsm_sdk.lab`, in one process.
State: a cluster per test.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import anyio
import pytest

from nsm_sdk.api import Connection
from nsm_sdk.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NsmError, ProgrammingError
from nsm_sdk.lab import INPROC, MEMORY, NAMESPACES, PROGRAMS_SIMULATED, UNIX, Cluster, Mode, ProgramHop
from nsm_sdk.netlink import list_namespaces
from nsm_sdk.testing import virtual_time
from tests.mesh.modes import URL, nothing_left, run, why_not
from tests.run import unique


class Oops(Exception):
    """Raised by the body of a test."""


async def test_everything_ends_with_the_cluster_after_a_failure() -> None:
    cluster = Cluster(UNIX)
    folders: list[Path] = []

    async def body() -> None:
        async with cluster:
            node = await cluster.node()
            await node.endpoint("nse-1")
            folders.append(cluster.folder)
            assert len(list(cluster.folder.glob("*.sock"))) == 4
            raise Oops

    with pytest.raises(Oops):
        await body()
    assert not folders[0].exists()
    assert not any(hop.alive for hop in cluster.hops.values())
    await cluster.aclose()


@pytest.mark.netns
async def test_namespaces_end_with_the_cluster_after_a_failure() -> None:
    if why_not(NAMESPACES):
        pytest.skip(why_not(NAMESPACES))
    cluster = Cluster(NAMESPACES)

    async def body() -> None:
        async with cluster:
            await (await cluster.node()).client("nsc-1")
            assert len(list_namespaces(cluster.name)) == 1
            raise Oops

    with pytest.raises(Oops):
        await body()
    assert list_namespaces(cluster.name) == []


async def test_everything_ends_when_the_body_is_cancelled() -> None:
    cluster = Cluster(UNIX)
    with anyio.move_on_after(0.2):
        async with cluster:
            await (await cluster.node()).endpoint("nse-1")
            await anyio.sleep_forever()
    assert not any(hop.alive for hop in cluster.hops.values())


@virtual_time
async def test_names_are_used_once() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node("node-1")
        with pytest.raises(AlreadyExists, match="'node-1'"):
            await cluster.node("node-1")
        await node.client("nsc-1")
        with pytest.raises(AlreadyExists, match="'nsc-1'"):
            await node.client("nsc-1")


@virtual_time
async def test_a_hop_that_does_not_run_says_so() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node("node-1")
        nsc = await node.client("nsc-1")
        assert nsc.alive
        await nsc.kill()
        assert not nsc.alive
        with pytest.raises(FailedPrecondition, match="nsc-1 does not run"):
            await nsc.request(URL)
        await nsc.kill()
        await nsc.stop()
        await nsc.restart()
        assert nsc.alive
        assert "not running" not in repr(nsc.hop)


@virtual_time
async def test_programs_need_a_mode_with_programs() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node("node-1")
        with pytest.raises(ProgrammingError, match="mode with programs"):
            await node.program("nsc", "nsc-1", network_services=URL)


@virtual_time
async def test_a_stop_unregisters_and_a_kill_does_not() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node("node-1")
        before = (await cluster.counts()).of("entries", "registry")
        nse = await node.endpoint("nse-1")
        assert (await cluster.counts()).of("entries", "registry") == before + 2
        await nse.kill()
        assert (await cluster.counts()).of("entries", "registry") == before + 2
        await nse.restart()
        await nse.stop()
        # The service stays: other endpoints may offer it.
        assert (await cluster.counts()).of("entries", "registry") == before + 1


@virtual_time
async def test_a_pod_that_is_gone() -> None:
    async with Cluster(MEMORY) as cluster:
        node = await cluster.node("node-1")
        pod = await node.pod("a")
        assert await pod.holds() == {"interfaces": 0, "routes": 0, "rules": 0}
        await pod.remove()
        await pod.remove()
        assert await pod.holds() == {}
        with pytest.raises(FailedPrecondition, match="is gone"):
            await pod.links()
        assert await pod.route_get("10.0.0.1") is None


@virtual_time
async def test_an_interface_deleted_by_hand_is_made_again_by_a_refresh() -> None:
    async with Cluster(MEMORY) as cluster:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        conn = await nsc.request(URL)
        assert await nsc.pod.unlink("nsm-1")
        assert not await nsc.pod.unlink("nsm-1")
        assert (await nsc.ping(conn, timeout=0.1)).lost == 1
        conn = await nsc.refresh(conn)
        assert (await nsc.ping(conn)).ok


@virtual_time
async def test_pinging_notices_a_gap_and_errors_of_the_block_come_out_as_they_are() -> None:
    async with Cluster(MEMORY) as cluster:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        conn = await nsc.request(URL)
        async with nsc.pod.pinging("172.16.0.0", source="172.16.0.1", interval=0.1, timeout=0.1) as pings:
            await anyio.sleep(1)
            assert pings.sent - len(pings.times) <= 1
            await nsc.pod.unlink("nsm-1")
            await anyio.sleep(1)
        assert pings.lost > 1
        with pytest.raises(Oops):
            async with nsc.pod.pinging("172.16.0.0", source="172.16.0.1"):
                raise Oops
        with pytest.raises(InvalidRequest, match="one family"):
            await nsc.ping(Connection())
        await nsc.close(conn)


@virtual_time
async def test_a_client_may_share_a_pod() -> None:
    async with Cluster(MEMORY) as cluster:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        first = await node.client("nsc-1")
        second = await node.client("nsc-2", pod=first.pod)
        await first.request("kernel://icmp-responder/one")
        await second.request("kernel://icmp-responder/two")
        assert sorted(link.name for link in await first.pod.links()) == ["one", "two"]


@virtual_time
async def test_an_endpoint_that_may_not_register_says_so_at_once() -> None:
    async with Cluster(INPROC) as cluster:
        node = await cluster.node("node-1")
        with pytest.raises(InvalidRequest) as caught:
            await node.endpoint("nse-1", service="")
        assert caught.value.hop


async def test_a_program_that_cannot_start_says_why(tmp_path: Path) -> None:
    hop = ProgramHop("registry", "registry", f"unix://{tmp_path}/r.sock", {"expire_period": "soon"}, tmp_path)
    with pytest.raises(FailedPrecondition, match=r"(?s)ended with status 2.*NSM_EXPIRE_PERIOD"):
        await hop.start()
    assert not hop.alive
    with pytest.raises(FailedPrecondition, match="does not run"):
        assert hop.pid


def test_a_program_of_any_role_beside_the_mesh() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("hand")
        await nsc.close(await nsc.request(URL))
        before = await cluster.counts()
        program = await node.program("nsc", "nsc-1", network_services=URL, datapath="simulated")
        event = await program.event("connected", since=0)
        assert event["endpoint"] == "nse-1"
        assert len(event["path"]) == 4
        was = program.pid
        await program.kill()
        seen = len(program.events)
        await program.start()
        assert program.pid != was
        await program.event("connected", since=seen)
        await program.stop()
        assert program.events[-1] == {"event": "ended", "status": 0}
        await nothing_left(cluster, before)

    run(PROGRAMS_SIMULATED, scenario)


def test_hops_in_a_row_fail_with_the_name_of_the_one_that_is_missing() -> None:
    async def scenario(cluster: Cluster) -> None:
        node = await cluster.node("node-1")
        await node.endpoint("nse-1")
        nsc = await node.client("nsc-1")
        await node.manager.kill()
        with pytest.raises(NsmError) as caught:
            await nsc.request(URL, timeout=1.0)
        assert "nobody answers" in str(caught.value)
        assert caught.value.hint

    run(INPROC, scenario, dial_timeout=0.2)


@pytest.mark.parametrize("mode", [UNIX, PROGRAMS_SIMULATED], ids=["unix", "programs"])
async def test_folders_and_names_may_be_too_long_for_sockets(
    mode: Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("d" * 120)
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    async with Cluster(mode, name=unique()) as cluster:
        node = await cluster.node("n" * 100)
        await node.endpoint("e" * 120)
        client = await node.client("c" * 120)
        conn = await client.request(URL)
        await client.close(conn)
    assert not list(folder.iterdir())
