# SPDX-License-Identifier: Apache-2.0
"""What was asked for goes to another endpoint; what was given stays behind.

Does:  lets endpoints give all that a connection can hold, moves the connection, and looks at the Request that the next
       endpoint gets: from healing, from a plain reselect, and through managers and forwarders.
Place: nsm_sdk.elements.merge, nsm_sdk.elements.begin, nsm_sdk.heal.moving.
State: none.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, Request, State
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.elements import Begin
from nsm_sdk.elements.merge import only_wishes, wish_again, wishes
from nsm_sdk.errors import NoCandidate
from nsm_sdk.heal import Heal
from nsm_sdk.heal.model import Phase
from nsm_sdk.lab import Cluster
from nsm_sdk.testing import VirtualClock, rig, sample_request, settled, virtual_time
from tests.heal.test_heal_scenarios import ID, healed, nothing_left, two
from tests.heal.world import Flows, World, client


class Gives(Element):
    """What an endpoint and the hops before it put into an answer; refuses a payload that the service has no more."""

    def __init__(self) -> None:
        self.payload = "IP"
        self.seen: list[Connection] = []

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        seen = Connection()
        seen.CopyFrom(request.connection)
        self.seen.append(seen)
        if request.connection.payload not in ("", self.payload):
            raise NoCandidate(f"service carries {self.payload}")
        conn = await next.request(call, request)
        name = conn.network_service_endpoint_name or "nse-1"
        conn.payload = self.payload
        conn.labels["given by"] = name
        conn.labels["changed"] = name
        context = conn.context
        context.MTU = 1400
        context.extra_context["given by"] = name
        context.ethernet_context.src_mac = "02:00:00:00:00:01"
        context.ethernet_context.vlan_tag = 7
        context.ip_context.excluded_prefixes.append(f"10.{len(name)}.0.0/16")
        context.ip_context.extra_prefixes.append("10.9.0.0/24")
        context.ip_context.src_routes.add(prefix="10.8.0.0/16")
        context.ip_context.policies.add(proto="6", dst_port="80")
        context.ip_context.ip_neighbors.add(ip="10.0.0.9", hardware_address="02:00:00:00:00:09")
        context.dns_context.configs.add(dns_server_ips=["10.0.0.53"])
        conn.mechanism.parameters["given"] = name
        return conn


def asking(**labels: str) -> Request:
    request = sample_request(ID)
    conn = request.connection
    conn.ClearField("context")
    conn.payload = ""
    conn.labels.clear()
    conn.labels.update({"app": "shop", "changed": "by nobody", **labels})
    conn.context.ip_context.excluded_prefixes.append("172.16.0.0/12")
    conn.context.ip_context.src_routes.add(prefix="192.168.0.0/16")
    conn.context.extra_context["wish"] = "1"
    return request


def same(seen: Connection, wanted: Connection, *, addresses: bool = True) -> None:
    """`seen` asks for what is `wanted`, and for nothing else; addresses are not looked at unless asked to."""
    there = wishes(seen)
    if not addresses:
        for name in ("src_ip_addrs", "dst_ip_addrs"):
            there.context.ip_context.ClearField(name)
    assert there == wishes(wanted)
    assert not seen.HasField("mechanism")
    assert seen.network_service_endpoint_name == ""
    assert seen.state == State.RESELECT_REQUESTED


@virtual_time
async def test_healing_asks_the_next_endpoint_for_what_was_asked_for() -> None:
    world, gives = World(endpoints=two()), Gives()
    heal = Heal(Flows(world, events=True), seed=1)
    probe = heal.probe
    assert isinstance(probe, Flows)
    async with rig(*client(world, heal, gives)) as bench:
        first = asking()
        conn = await bench.request(asking())
        await settled()
        assert conn.payload == "IP"
        # What is given back to it does not become a wish of the application, what it adds does.
        second = Request(connection=conn)
        second.connection.labels["more"] = "1"
        second.connection.context.MTU = 1300
        conn = await bench.request(second)
        await settled()
        gives.payload = "ETHERNET"
        probe.cut("nse-1")
        await VirtualClock().advance(2)
        assert healed(heal) == (1, 1)
        wanted = first.connection
        wanted.labels["more"] = "1"
        wanted.context.MTU = 1300
        moved = next(seen for seen in gives.seen if seen.state == State.RESELECT_REQUESTED)
        same(moved, wanted, addresses=False)
        await nothing_left(bench)


@virtual_time
async def test_a_service_that_comes_back_with_another_payload_heals() -> None:
    world, gives = World(endpoints=two()), Gives()
    heal = Heal(Flows(world, events=True), seed=1)
    async with rig(*client(world, heal, gives)) as bench:
        await bench.request(asking())
        await settled()
        for payload, dead in (("ETHERNET", "nse-1"), ("IP", "nse-2")):
            gives.payload = payload
            for name, nse in world.endpoints.items():
                nse.flows = nse.serves = nse.registered = name != dead
            probe = heal.probe
            assert isinstance(probe, Flows)
            probe.cut(dead)
            await VirtualClock().advance(5)
            assert world.requests()[-1].error == ""
        assert healed(heal) == (2, 2)
        await nothing_left(bench)


@virtual_time
async def test_a_payload_that_was_asked_for_is_kept() -> None:
    world, gives = World(endpoints=two()), Gives()
    heal = Heal(Flows(world, events=True), seed=1)
    async with rig(*client(world, heal, gives)) as bench:
        request = asking()
        request.connection.payload = "IP"
        await bench.request(request)
        await settled()
        gives.payload = "ETHERNET"
        probe = heal.probe
        assert isinstance(probe, Flows)
        probe.cut("nse-1")
        await VirtualClock().advance(5)
        assert healed(heal) == (0, 0)
        assert {seen.payload for seen in gives.seen} == {"IP"}
        gives.payload = "IP"
        await VirtualClock().advance(10)
        assert healed(heal) == (1, 1)
        await nothing_left(bench)


@virtual_time
async def test_an_edit_of_ones_own_has_the_last_word() -> None:
    def edit(request: Request) -> None:
        request.connection.labels["tier"] = "second"
        request.connection.context.MTU = 1280
        request.connection.state = State.RESELECT_REQUESTED

    world, gives = World(endpoints=two()), Gives()
    heal = Heal(Flows(world, events=True), seed=1, reselect=edit)
    async with rig(*client(world, heal, gives)) as bench:
        await bench.request(asking())
        await settled()
        probe = heal.probe
        assert isinstance(probe, Flows)
        probe.cut("nse-1")
        await VirtualClock().advance(2)
        moved = next(seen for seen in gives.seen if seen.state == State.RESELECT_REQUESTED)
        assert (moved.labels["tier"], moved.context.MTU, moved.payload) == ("second", 1280, "")
        await bench.close()


@pytest.mark.parametrize("merges", [True, False])
@virtual_time
async def test_a_reselect_that_any_element_posts(merges: bool) -> None:
    gives = Gives()

    class RecordEvents(Element):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            self.events = call.events
            return await next.request(call, request)

    posts = RecordEvents()
    async with rig(Begin(merges=merges), posts, gives) as bench:
        conn = await bench.request(asking())
        wanted = asking().connection
        if merges:
            conn.labels["more"] = "1"
            wanted.labels["more"] = "1"
        await bench.request(Request(connection=conn))
        for _ in range(2):
            posts.events.reselect()
            await settled()
            same(gives.seen[-1], wanted)
        assert len(gives.seen) == 4
        await bench.close(conn)


@virtual_time
async def test_it_heals_through_a_manager_and_a_forwarder() -> None:
    async with Cluster() as cluster:
        near = await cluster.node("node-1")
        first = await near.endpoint("nse-1", payload="IP")
        heal = Heal(seed=1)
        nsc = await near.client("nsc-1", heal)
        conn = await nsc.request("kernel://icmp-responder")
        assert conn.payload == "IP"
        await near.endpoint("nse-2", payload="ETHERNET")
        await settled()
        await first.hop.kill()
        await VirtualClock().advance(60)
        standing = heal.standing(conn.id)
        assert standing is not None
        assert standing.phase is Phase.WATCHING
        held = heal._open[conn.id].conn
        assert held is not None
        assert (held.connection().payload, held.connection().network_service_endpoint_name) == ("ETHERNET", "nse-2")
        await nsc.close(conn)


texts = st.sampled_from(["", "a", "b"])
labels = st.dictionaries(st.sampled_from("xyz"), st.sampled_from("12"))
routes = st.lists(st.sampled_from(["10.1.0.0/16", "10.2.0.0/16", "10.3.0.0/16"]), unique=True)


@st.composite
def connections(draw: st.DrawFn) -> Connection:
    conn = Connection(id="c", payload=draw(texts), labels=draw(labels))
    if draw(st.booleans()):
        conn.context.MTU = draw(st.sampled_from([0, 1400, 1500]))
        conn.context.extra_context.update(draw(labels))
        for prefix in draw(routes):
            conn.context.ip_context.src_routes.add(prefix=prefix)
        conn.context.ip_context.src_ip_addrs.extend(draw(routes))
    return conn


@given(connections(), connections())
def test_giving_back_what_one_was_given_wishes_nothing_new(asked: Connection, answer: Connection) -> None:
    assert wish_again(wishes(asked), answer, answer) == wishes(asked)


@given(connections(), connections())
def test_only_wishes_are_left(asked: Connection, answer: Connection) -> None:
    request = Request(connection=answer)
    only_wishes(request, wishes(asked))
    assert wishes(request.connection) == wishes(asked)
    assert request.connection.id == answer.id


@given(connections(), connections(), connections())
def test_what_is_added_is_wished_and_what_is_taken_out_is_not(
    asked: Connection, answer: Connection, again: Connection
) -> None:
    wished = wish_again(wishes(asked), answer, again)
    for key in "xyz":
        before = asked.labels.get(key)
        kept = before if again.labels.get(key) == answer.labels.get(key) else again.labels.get(key)
        assert wished.labels.get(key) == kept
    was, now, had = ({route.prefix for route in conn.context.ip_context.src_routes} for conn in (answer, again, asked))
    got = [route.prefix for route in wished.context.ip_context.src_routes]
    assert set(got) == (had - (was - now)) | (now - was)
    assert len(got) == len(set(got))
