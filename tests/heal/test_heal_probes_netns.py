# SPDX-License-Identifier: Apache-2.0
"""Probes on real links.

Does:  two namespaces joined by a veth pair: pings, neighbours, TCP, carrier by events; then breaks the link in turn.
Place: nsm_sdk.heal.probes with the ports of nsm_sdk.netlink; skipped where there are no namespaces.
State: the namespaces of one test, removed at its end.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import socket
import subprocess
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from nsm_sdk.heal import All, Auto, Carrier, Icmp, Liveness, Neighbour, Probe, Target, Tcp, Verdict
from nsm_sdk.heal.probes.icmp import Channel
from nsm_sdk.heal.probes.probe import LinkWatch, Regular
from nsm_sdk.netlink import SocketWatch, create_namespace, delete_namespace, namespace_url, probe_now, run_inside
from nsm_sdk.testing import Rig, rig
from tests.run import MARK

pytestmark = pytest.mark.netns
LINK = "nsm-1"


@functools.cache
def why_not() -> str:
    """Why this machine cannot run these tests; empty where it can."""
    if os.geteuid():
        return "needs root"
    found = probe_now()
    lacking = [found[name] for name in ("namespaces", "veth") if not found.works(name)]
    return "; ".join(f"{one.name}: {one.reason}" for one in lacking)


def ip(namespace: str, *words: str) -> None:
    subprocess.run(["ip", "-n", namespace, *words], check=True, capture_output=True)


@dataclass(slots=True, kw_only=True)
class Pair:
    """A link between two namespaces."""

    near: str
    far: str

    def target(self, **fields: object) -> Target:
        """The connection, from the near end."""
        pairs = (("10.9.1.1", "10.9.1.0"), ("2001:db8:9::1", "2001:db8:9::2"))
        values: dict[str, object] = {
            "id": "c1",
            "namespace": namespace_url(self.near),
            "mechanism": "KERNEL",
            "interface": LINK,
            "pairs": pairs,
            "sources": tuple(src for src, _ in pairs),
        }
        return Target(**{**values, **fields})  # type: ignore[arg-type]


@pytest.fixture
def pair() -> Iterator[Pair]:
    if why_not():
        pytest.skip(why_not())
    names = [create_namespace(prefix=MARK), create_namespace(prefix=MARK)]
    near, far = names
    try:
        ip(near, "link", "add", LINK, "type", "veth", "peer", "name", LINK, "netns", far)
        for namespace, four, six in (
            (near, "10.9.1.1/31", "2001:db8:9::1/64"),
            (far, "10.9.1.0/31", "2001:db8:9::2/64"),
        ):
            ip(namespace, "addr", "add", four, "dev", LINK)
            ip(namespace, "addr", "add", six, "dev", LINK, "nodad")
            ip(namespace, "link", "set", LINK, "up")
        yield Pair(near=near, far=far)
    finally:
        for name in names:
            delete_namespace(name)


async def links(namespace: str | int) -> LinkWatch:
    return await SocketWatch.open(namespace)


@asynccontextmanager
async def running(probe: Probe) -> AsyncGenerator[Rig, None]:
    async with rig() as bench:
        await probe.acquire(bench.runtime)
        try:
            yield bench
        finally:
            await probe.release()


async def once(bench: Rig, probe: Probe, target: Target, timeout: float = 0.5) -> Verdict:
    """The verdict of one check."""
    done: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
    chosen = probe.choose(target)
    assert chosen is not None, probe.why_not(target)
    chosen.begin(bench.runtime, target, timeout, done.set_result)
    return await done


PROBES: dict[str, Callable[[], Probe]] = {
    "icmp": lambda: Icmp(inside=run_inside),
    "neighbour": lambda: Neighbour(inside=run_inside),
    "tcp": lambda: Tcp(7, inside=run_inside),
    "carrier": lambda: Carrier(inside=run_inside),
    "all": lambda: All(Carrier(inside=run_inside), Icmp(inside=run_inside)),
    "auto": lambda: Auto(links=links, inside=run_inside),
}


@pytest.mark.parametrize("name", PROBES)
async def test_alive_then_far_side_down(pair: Pair, name: str) -> None:
    probe = PROBES[name]()
    async with running(probe) as bench:
        # IPv6 takes a moment after the link has come up
        for _ in range(20):
            first = await once(bench, probe, pair.target())
            if first.alive:
                break
        assert first.alive, first.why
        ip(pair.far, "link", "set", LINK, "down")
        verdict = await once(bench, probe, pair.target(), 0.2)
        assert verdict.alive is False
        assert verdict.why


@pytest.mark.parametrize("name", ["icmp", "tcp", "neighbour"])
async def test_silence_is_seen_within_the_budget(pair: Pair, name: str) -> None:
    probe = PROBES[name]()
    ip(pair.far, "addr", "del", "10.9.1.0/31", "dev", LINK)
    async with running(probe) as bench:
        began = time.monotonic()
        verdict = await once(bench, probe, pair.target(pairs=(("10.9.1.1", "10.9.1.0"),), sources=("10.9.1.1",)), 0.2)
        assert verdict.alive is False
        assert 0.1 < time.monotonic() - began < 1.5


async def test_source_only_asks_the_gateway(pair: Pair) -> None:
    probe = Auto(links=links, inside=run_inside)
    async with running(probe) as bench:
        target = pair.target(pairs=(), sources=("10.9.1.1",), gateways=("10.9.1.0",))
        assert (await once(bench, probe, target)).alive
        gone = pair.target(pairs=(), sources=("10.9.1.1",), gateways=("10.9.1.77",))
        assert (await once(bench, probe, gone, 0.2)).alive is False


async def test_link_down_is_heard_within_milliseconds(pair: Pair) -> None:
    probe = Carrier(links=links, inside=run_inside)
    async with running(probe) as bench:
        heard: asyncio.Queue[tuple[float, Verdict]] = asyncio.Queue()
        stop = probe.follow(bench.runtime, pair.target(), lambda verdict: heard.put_nowait((time.monotonic(), verdict)))
        assert stop is not None
        _, first = await asyncio.wait_for(heard.get(), 5)
        assert first.alive
        began = time.monotonic()
        ip(pair.near, "link", "set", LINK, "down")
        at, verdict = await asyncio.wait_for(heard.get(), 5)
        assert verdict.alive is False
        assert at - began < 0.5
        stop()


@pytest.mark.parametrize("what", ["address", "link", "far"])
async def test_regular_watch_hears_what_breaks(pair: Pair, what: str) -> None:
    probe = Auto(links=links, inside=run_inside)
    async with running(probe) as bench:
        target = pair.target(pairs=(("10.9.1.1", "10.9.1.0"),), sources=("10.9.1.1",))
        chosen = probe.choose(target)
        assert chosen is not None
        reports: asyncio.Queue[Verdict] = asyncio.Queue()
        regular = Regular(
            bench.runtime,
            chosen,
            target,
            Liveness(interval=0.05, timeout=0.2),
            random.Random(1),
            lambda verdict, _: reports.put_nowait(verdict),
        )
        assert (await asyncio.wait_for(reports.get(), 5)).alive
        match what:
            case "address":
                ip(pair.near, "addr", "del", "10.9.1.1/31", "dev", LINK)
            case "link":
                ip(pair.near, "link", "del", LINK)
            case _:
                ip(pair.far, "addr", "del", "10.9.1.0/31", "dev", LINK)
        assert (await asyncio.wait_for(reports.get(), 5)).alive is False
        regular.stop()


async def test_a_namespace_made_anew_is_found(pair: Pair) -> None:
    probe = Icmp(inside=run_inside)
    async with running(probe) as bench:
        target = pair.target(pairs=(("10.9.1.1", "10.9.1.0"),))
        assert (await once(bench, probe, target)).alive
        delete_namespace(pair.near)
        create_namespace(pair.near)
        assert (await once(bench, probe, target, 0.2)).alive is False
        # it looks into the new namespace
        ip(pair.near, "addr", "add", "10.9.1.1/31", "dev", "lo")
        loopback = pair.target(pairs=(("10.9.1.1", "10.9.1.1"),))
        assert (await once(bench, probe, loopback)).alive


async def test_a_namespace_that_is_gone_is_dead_and_not_an_error(pair: Pair) -> None:
    delete_namespace(pair.near)
    probe = Icmp(inside=run_inside)
    async with running(probe) as bench:
        done: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        probe.begin(bench.runtime, pair.target(), 0.2, done.set_result)
        assert (await done).alive is False


async def test_one_socket_for_all(pair: Pair) -> None:
    probe = Icmp(inside=run_inside)
    async with running(probe) as bench:
        target = pair.target(pairs=(("10.9.1.1", "10.9.1.0"),))
        verdicts = await asyncio.gather(*(once(bench, probe, target) for _ in range(200)))
        assert all(verdict.alive for verdict in verdicts)
        assert len(probe._channels) == 1
        (channel,) = probe._channels.values()
        assert isinstance(channel, Channel)
        assert not channel.pending


async def test_without_rights_it_says_so() -> None:
    def refuse(namespace: str | int, fn: object) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    probe = Icmp(inside=refuse, strict=True)  # type: ignore[arg-type]
    async with running(probe) as bench:
        target = Target(
            namespace=f"file:///proc/{os.getpid()}/ns/net", pairs=(("10.0.0.1", "10.0.0.2"),), interface=LINK
        )
        assert "ping_group_range" in probe.why_not(target)
        assert probe.choose(target) is None
        done: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        probe.begin(bench.runtime, target, 0.2, done.set_result)
        assert (await done).alive is None
