# SPDX-License-Identifier: Apache-2.0
"""SIGKILL at any time loses nothing that others cannot rebuild."""

from __future__ import annotations

from tests.programs.processes import Mesh


async def test_a_manager_that_comes_back_gets_all_registrations_again() -> None:
    async with Mesh() as mesh:
        _, nsmgr, forwarder, nse = await mesh.all("registry", "nsmgr", "forwarder", "nse")
        await forwarder.event("registered")
        await nse.event("registered")
        await nsmgr.kill()
        nsmgr = await mesh.start("nsmgr")
        assert (await forwarder.event("registered"))["id"] == "forwarder"
        assert (await nse.event("registered"))["id"] == "icmp-server"
        await nsmgr.event("registered", id="icmp-server")
        nsc = await mesh.start("nsc")
        await nsc.event("connected")


async def test_a_registry_that_comes_back_gets_all_registrations_again() -> None:
    async with Mesh() as mesh:
        registry, _, forwarder, nse = await mesh.all("registry", "nsmgr", "forwarder", "nse")
        await forwarder.event("registered")
        await nse.event("registered")
        await registry.kill()
        registry = await mesh.start("registry")
        await registry.event("registered", id="icmp-server")
        nsc = await mesh.start("nsc")
        await nsc.event("connected")


async def test_a_connection_survives_its_manager() -> None:
    async with Mesh() as mesh, mesh.connected() as (_, nsmgr, _, nse, nsc):
        before = nsc.events("connected")[0]
        await nsmgr.kill()
        healing = await nsc.event("healing")
        assert healing["id"] == "nsc-0"
        assert healing["why"]
        await mesh.start("nsmgr")
        healed = await nsc.event("healed")
        assert (healed["moved"], healed["src"], healed["dst"]) == (False, before["src"], before["dst"])
        assert healed["endpoint"] == "icmp-server"
        assert await nsc.stop() == 0
        assert (await nse.event("closed"))["src"] == before["src"]


async def test_a_connection_survives_its_forwarder() -> None:
    async with Mesh() as mesh, mesh.connected() as (*_, forwarder, _, nsc):
        before = nsc.events("connected")[0]
        await forwarder.kill()
        await nsc.event("healing")
        await mesh.start("forwarder")
        healed = await nsc.event("healed")
        assert (healed["src"], healed["dst"]) == (before["src"], before["dst"])


async def test_a_connection_moves_when_its_endpoint_dies() -> None:
    async with Mesh() as mesh, mesh.connected() as (*_, nse, nsc):
        other = await mesh.start("nse", name="other", listen_on=mesh.socket("other"), cidr_prefix="10.0.0.0/24")
        await other.event("registered")
        await nse.kill()
        await nsc.event("healing")
        healed = await nsc.event("healed")
        assert (healed["moved"], healed["endpoint"]) == (True, "other")
        assert "10.0.0.0/32" in healed["dst"]
        # The old endpoint's addresses, offered to the new one, are tidied away.
        assert (await nsc.event("refreshed"))["dst"] == ["10.0.0.0/32"]


async def test_a_client_that_comes_back_resumes_its_connections() -> None:
    async with Mesh() as mesh, mesh.connected() as (*_, nse, nsc):
        before = nsc.events("connected")[0]
        await nse.event("connected")
        await nsc.kill()
        nsc = await mesh.start("nsc")
        after = await nsc.event("connected")
        assert {name: after[name] for name in ("id", "src", "dst", "path", "endpoint", "interface")} == {
            name: before[name] for name in ("id", "src", "dst", "path", "endpoint", "interface")
        }
        # For the endpoint it is the connection that it had.
        assert (await nse.event("refreshed"))["src"] == before["src"]
        assert len(nse.events("connected")) == 1
        assert await nsc.stop() == 0


async def test_a_client_that_asks_for_something_else_resumes_nothing() -> None:
    async with Mesh() as mesh, mesh.connected() as (*_, nsc):
        await nsc.kill()
        nsc = await mesh.start("nsc", network_services="kernel://icmp-responder/other")
        assert (await nsc.event("connected"))["interface"] == "other"


async def test_an_endpoint_that_comes_back_under_its_name_is_used_again() -> None:
    async with Mesh() as mesh, mesh.connected() as (*_, nse, nsc):
        await nse.kill()
        await nsc.event("healing")
        nse = await mesh.start("nse")
        assert (await nsc.event("healed"))["endpoint"] == "icmp-server"
        assert (await nse.event("connected"))["path"][-1] == "icmp-server"


async def test_connections_of_a_client_that_died_expire() -> None:
    async with Mesh(NSM_MAX_TOKEN_LIFETIME="2s") as mesh, mesh.connected() as (*_, nse, nsc):
        await nsc.kill()
        assert (await nse.event("closed"))["path"][0] == "nsc"
