# SPDX-License-Identifier: Apache-2.0
"""Five programs find each other, whatever the order in which they start."""

from __future__ import annotations

import itertools
import random
import signal

import pytest

from nsm_sdk.api import Connection, NetworkServiceEndpoint, Request
from nsm_sdk.core import Query, Role, find_all
from nsm_sdk.errors import InvalidRequest, NotFound, Unauthenticated
from nsm_sdk.transport import Dialer
from tests.programs.processes import Mesh

ROLES = ("registry", "nsmgr", "forwarder", "nse", "nsc")
ORDERS = [ROLES, ROLES[::-1], *random.Random(7).sample(list(itertools.permutations(ROLES)), 2)]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
async def test_they_connect_in_any_order(order: tuple[str, ...]) -> None:
    async with Mesh() as mesh:
        started = dict(zip(order, await mesh.all(*order), strict=True))
        nsc, nse = started["nsc"], started["nse"]
        ready = await nsc.ready()
        assert (ready["role"], ready["name"], ready["listen"], ready["pid"]) == ("nsc", "nsc", [], nsc.pid)
        line = await nsc.event("connected")
        assert line["id"] == "nsc-0"
        assert line["path"] == ["nsc", "nsmgr", "forwarder", "icmp-server"]
        assert (line["service"], line["endpoint"]) == ("icmp-responder", "icmp-server")
        assert (line["mechanism"], line["interface"]) == ("KERNEL", "nsm-1")
        assert (line["dst"], line["src"]) == (["169.254.0.0/32"], ["169.254.0.1/32"])
        assert line["ms"] > 0
        assert (await nse.event("connected"))["path"] == line["path"]
        assert await nsc.stop() == 0
        assert (await nse.event("closed"))["src"] == line["src"]
        assert [line["id"] for line in nsc.events("closed")] == ["nsc-0"]
        for process in started.values():
            if process is not nsc:
                assert await process.stop() == 0


async def test_over_tcp_with_ports_that_the_system_chooses() -> None:
    async with Mesh() as mesh:
        registry = await mesh.start("registry", listen_on="tcp://127.0.0.1:0")
        (registry_url,) = (await registry.ready())["listen"]
        assert registry_url.startswith("tcp://127.0.0.1:")
        nsmgr = await mesh.start(
            "nsmgr", listen_on=f"tcp://127.0.0.1:0,{mesh.manager}", registry_url=registry_url, name="manager"
        )
        manager_url, socket_url = (await nsmgr.ready())["listen"]
        assert not manager_url.endswith(":0")
        assert socket_url == mesh.manager
        forwarder = await mesh.start("forwarder", listen_on="tcp://127.0.0.1:0", connect_to=manager_url)
        nse = await mesh.start("nse", listen_on="tcp://127.0.0.1:0", connect_to=manager_url)
        nsc = await mesh.start("nsc", connect_to=manager_url)
        line = await nsc.event("connected")
        assert line["path"] == ["nsc", "manager", "forwarder", "icmp-server"]
        for process in (nsc, nse, forwarder, nsmgr, registry):
            assert await process.stop() == 0


async def test_a_manager_with_an_empty_registry_url_needs_no_registry() -> None:
    async with Mesh() as mesh:
        await mesh.start("nsmgr", registry_url="")
        await mesh.all("forwarder", "nse")
        nsc = await mesh.start("nsc")
        assert (await nsc.event("connected"))["endpoint"] == "icmp-server"


async def test_services_are_connected_in_order_and_keep_out_of_each_others_addresses() -> None:
    async with Mesh() as mesh:
        await mesh.all("registry", "nsmgr", "forwarder")
        for number in (1, 2):
            await mesh.start(
                "nse", name=f"nse-{number}", service_names=f"service-{number}", listen_on=mesh.socket(f"nse-{number}")
            )
        nsc = await mesh.start("nsc", network_services="kernel://service-2/nsm-2,kernel://service-1/nsm-1")
        first = await nsc.event("connected")
        second = await nsc.event("connected")
        assert [(line["id"], line["service"]) for line in (first, second)] == [
            ("nsc-0", "service-2"),
            ("nsc-1", "service-1"),
        ]
        assert not {*first["src"], *first["dst"]} & {*second["src"], *second["dst"]}


async def test_services_of_one_awareness_group_may_share_addresses() -> None:
    async with Mesh() as mesh:
        await mesh.all("registry", "nsmgr", "forwarder")
        for number in (1, 2):
            await mesh.start(
                "nse", name=f"nse-{number}", service_names=f"service-{number}", listen_on=mesh.socket(f"nse-{number}")
            )
        services = "kernel://service-1/nsm-1,kernel://service-2/nsm-2?app=blue"
        nsc = await mesh.start(
            "nsc",
            network_services=services,
            awareness_groups=f"[{services}]",
            labels="team:red",
            env={"NODE_NAME": "node-1"},
        )
        first, second = await nsc.event("connected"), await nsc.event("connected")
        assert (first["src"], first["dst"]) == (second["src"], second["dst"])


async def test_connections_are_refreshed_before_tokens_expire() -> None:
    async with Mesh(NSM_MAX_TOKEN_LIFETIME="3s") as mesh, mesh.connected() as (*_, nse, nsc):
        before = nsc.events("connected")[0]
        line = await nsc.event("refreshed")
        assert {name: line[name] for name in ("id", "src", "dst", "path", "interface")} == {
            name: before[name] for name in ("id", "src", "dst", "path", "interface")
        }
        assert (await nse.event("refreshed"))["src"] == before["src"]


async def test_an_endpoint_that_nobody_needs_leaves() -> None:
    async with Mesh() as mesh:
        registry, *_ = await mesh.all("registry", "nsmgr", "forwarder")
        nse = await mesh.start("nse", idle_timeout="2s", unregister_itself="true")
        await nse.event("registered", id="icmp-server")
        assert await nse.ended() == 0
        assert (await registry.event("closed"))["id"] == "icmp-server"


async def test_an_endpoint_leaves_its_registration_to_expire_unless_told() -> None:
    async with Mesh() as mesh:
        registry = await mesh.start("registry", expire_period="2s")
        await mesh.start("nsmgr")
        nse = await mesh.start("nse")
        await registry.event("registered", id="icmp-server")
        assert await nse.stop() == 0
        assert [line["id"] for line in nse.events("closed")] == []
        # It goes by itself when its time is over.
        assert (await registry.event("closed"))["id"] == "icmp-server"


async def test_several_services_and_their_payload() -> None:
    async with Mesh() as mesh:
        registry, *_ = await mesh.all("registry", "nsmgr", "forwarder")
        await mesh.start("nse", service_names="one,two", cidr_prefix="[10.0.0.0/24],[fd00::/64]", payload="IP")
        line = await registry.event("registered", id="icmp-server")
        assert line["service"] == "one,two"
        nsc = await mesh.start("nsc", network_services="kernel://two/a,kernel://one/b")
        first, second = await nsc.event("connected"), await nsc.event("connected")
        assert first["dst"] == ["10.0.0.0/32", "fd00::/128"]
        assert second["src"] == ["10.0.0.3/32", "fd00::3/128"]


async def test_each_try_tells_what_is_missing() -> None:
    async with Mesh() as mesh:
        await mesh.start("nsmgr", registry_url="")
        nsc = await mesh.start("nsc")
        await nsc.ready()
        for _ in range(3):
            line = await nsc.event("error")
            assert (line["id"], line["hop"], line["code"]) == ("nsc-0", "nsmgr", "UNAVAILABLE")
            assert line["element"] == "DiscoverForwarder.request"
            assert "not registered" in line["message"]
            assert line["hint"]


async def test_a_try_that_nobody_answers_ends_after_the_request_timeout() -> None:
    async with Mesh() as mesh:
        nsmgr = await mesh.start("nsmgr", registry_url="")
        await nsmgr.ready()
        nsmgr.send(signal.SIGSTOP)
        nsc = await mesh.start("nsc", request_timeout="300ms")
        for _ in range(2):
            line = await nsc.event("error")
            # The connection attempt gives up first, unless there was a connection.
            assert line["code"] in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
            assert line["ms"] < 5000
        nsmgr.send(signal.SIGCONT)
        await mesh.all("forwarder", "nse")
        await nsc.event("connected")


async def test_every_address_says_that_it_serves() -> None:
    async with Mesh() as mesh:
        nsmgr = await mesh.start("nsmgr", registry_url="", listen_on=f"tcp://127.0.0.1:0,{mesh.manager}")
        urls = (await nsmgr.ready())["listen"]
        dialer = Dialer()
        async with Role("asking", services=(dialer,)).serving() as asking:
            for url in urls:
                for service in ("", "networkservice.NetworkService", "registry.NetworkServiceEndpointRegistry"):
                    assert await dialer.healthy(url, asking.call(timeout=5.0), service)
                with pytest.raises(NotFound):
                    await dialer.healthy(url, asking.call(timeout=5.0), "nobody.Knows")
        assert await nsmgr.stop() == 0


async def test_a_request_without_path_or_token_is_refused_by_the_manager() -> None:
    async with Mesh() as mesh:
        await mesh.all("registry", "nsmgr", "forwarder", "nse")
        nsc = await mesh.start("nsc")
        await nsc.event("connected")
        dialer = Dialer()
        async with Role("asking", services=(dialer,)).serving() as asking:
            near = dialer(mesh.manager).connection
            assert near is not None
            plain = Request(connection=Connection(id="x", network_service="icmp-responder"))
            with pytest.raises(InvalidRequest, match="no path"):
                await near.request(asking.call(timeout=5.0), plain)
            plain.connection.path.path_segments.add(name="stranger", id="x")
            with pytest.raises((Unauthenticated, InvalidRequest), match="token"):
                await near.request(asking.call(timeout=5.0), plain)


async def test_icmp_over_the_simulated_datapath_if_asked_for_finds_it_dead() -> None:
    async with Mesh() as mesh, mesh.connected(liveness_probe="icmp", liveness_check_timeout="200ms") as (*_, nsc):
        line = await nsc.event("healing")
        assert "datapath" in line["why"] or "down" in line["why"]


async def test_connections_without_addresses_on_both_sides_count_as_alive() -> None:
    async with Mesh(NSM_MAX_TOKEN_LIFETIME="2s") as mesh:
        await mesh.all("registry", "nsmgr", "forwarder")
        await mesh.start("nse", cidr_prefix="")
        nsc = await mesh.start("nsc", liveness_probe="icmp", liveness_check_interval="10ms")
        line = await nsc.event("connected")
        assert (line["src"], line["dst"]) == ([], [])
        await nsc.event("refreshed")
        assert nsc.events("healing") == []


async def test_names_of_node_pod_and_cluster_become_labels_of_registrations() -> None:
    async with Mesh() as mesh:
        await mesh.start("nsmgr", registry_url="")
        nse = await mesh.start("nse", labels="app:blue,podName:mine", env={"NODE_NAME": "n1", "POD_NAME": "p1"})
        await nse.event("registered")
        dialer = Dialer()
        async with Role("asking", services=(dialer,)).serving() as asking:
            registry = dialer(mesh.manager).nse
            assert registry is not None
            query = Query(NetworkServiceEndpoint(name="icmp-server"))
            (entry,) = await find_all(registry, asking.call(timeout=5.0), query)
        labels = entry.network_service_labels["icmp-responder"].labels
        assert dict(labels) == {"app": "blue", "podName": "mine", "nodeName": "n1"}
