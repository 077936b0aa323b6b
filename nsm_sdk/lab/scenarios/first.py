# SPDX-License-Identifier: Apache-2.0
"""The first connection, step by step.

Does:  starts a mesh, connects, pings both ways, refreshes, closes, ends the mesh, and sees that nothing is left on the
       machine; tells of each step while it is at it. What does not hold raises `StoryError`.
Place: `nsm demo`, tests.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nsm_sdk.api import Connection, names
from nsm_sdk.errors import NsmError
from nsm_sdk.lab.cluster import Cluster
from nsm_sdk.lab.mode import Ground, Mode
from nsm_sdk.lab.pod import Pings
from nsm_sdk.lab.workload import LabClient, LabEndpoint
from nsm_sdk.netlink import list_namespaces

URL = "kernel://icmp-responder/nsm-1"
PREFIX = "172.16.0.0/24"
COUNT = 3
"""Echo requests each way."""


class StoryError(NsmError):
    """Something came out otherwise than it must."""


@dataclass(slots=True)
class Step:
    """One thing that is done. `seconds` is None while it is going on."""

    title: str
    seconds: float | None = None
    details: list[str] = field(default_factory=list)
    failed: str = ""
    ended: bool = False
    began: float = field(default_factory=time.perf_counter)

    def done(self) -> None:
        """The work is done; what follows only looks at it, and does not count."""
        if self.seconds is None:
            self.seconds = time.perf_counter() - self.began


Tell = Callable[[Step], None]
"""Called when a step begins, and again when it has ended."""


class Story:
    """Runs steps and tells of them."""

    def __init__(self, tell: Tell) -> None:
        self.steps: list[Step] = []
        self._tell = tell

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        step = Step(title)
        self.steps.append(step)
        self._tell(step)
        try:
            yield step
        except BaseException as error:
            step.failed = str(error) or type(error).__name__
            raise
        finally:
            step.done()
            step.ended = True
            self._tell(step)


async def first_connection(mode: Mode, tell: Tell, *, name: str = "demo") -> list[Step]:
    """Play it; the steps. Raises the error of the step that failed, after everything has been cleaned up."""
    story = Story(tell)
    cluster = Cluster(mode, name=name)
    try:
        await _play(story, cluster)
        folder = cluster.folder
        with story.step("End everything") as step:
            await cluster.aclose()
            step.done()
            _nothing_left(cluster, folder)
            step.details.append(_left_text(mode))
    finally:
        await cluster.aclose()
    return story.steps


async def _play(story: Story, cluster: Cluster) -> None:
    with story.step("Start registry, manager and forwarder") as step:
        await cluster.start()
        node = await cluster.node("node-1")
        step.done()
        step.details += [f"{hop.name} at {hop.url}" for hop in cluster.hops.values()]
    with story.step("Start an endpoint and a client, each in a pod of its own") as step:
        nse = await node.endpoint("nse-1", prefix=PREFIX)
        nsc = await node.client("nsc-1")
        step.done()
        step.details += [f"{one.name} in {_place(one, cluster.mode)}" for one in (nse, nsc)]
    with story.step(f"Request {URL}") as step:
        conn = await nsc.request(URL)
        step.done()
        _describe(step, conn)
    await _ping(story, nsc, nse, conn)
    with story.step("Refresh the connection") as step:
        again = await nsc.refresh(conn)
        step.done()
        _same(conn, again)
        step.details.append("same path, same addresses, same interface")
    await _ping(story, nsc, nse, again)
    with story.step("Close the connection") as step:
        await nsc.close(again)
        step.done()
        await _closed(cluster, nsc, nse)
        step.details.append("no connection, address or interface is left at any hop")


def _place(one: LabClient | LabEndpoint, mode: Mode) -> str:
    return one.pod.url if mode.ground is Ground.KERNEL else "a simulated pod"


def _describe(step: Step, conn: Connection) -> None:
    ip = conn.context.ip_context
    step.details += [
        "path       " + " > ".join(names(conn)),
        f"mechanism  {conn.mechanism.cls} {conn.mechanism.type}, interface {conn.mechanism.parameters['name']}",
        f"client     {', '.join(ip.src_ip_addrs)}",
        f"endpoint   {', '.join(ip.dst_ip_addrs)} ({conn.network_service_endpoint_name})",
    ]
    if len(names(conn)) != 4:
        raise StoryError(f"the path has {len(names(conn))} segments, not 4", hint="see the hops above")


async def _ping(story: Story, nsc: LabClient, nse: LabEndpoint, conn: Connection) -> None:
    with story.step("Ping, both ways") as step:
        for who, pings in (
            ("client to endpoint", await nsc.ping(conn, count=COUNT)),
            ("endpoint to client", await nse.ping(conn, count=COUNT)),
        ):
            step.details.append(f"{who}: {_fared(pings)}")
            if not pings.ok:
                raise StoryError(f"{who}: {pings.lost} of {pings.sent} lost", hint="see `nsm doctor`")


def _fared(pings: Pings) -> str:
    took = f", {pings.average * 1e6:.0f} us on average" if pings.times and pings.average else ""
    return f"{pings.sent - pings.lost} of {pings.sent} answered{took}"


def _same(before: Connection, after: Connection) -> None:
    for what, was, came in (
        ("path", names(before), names(after)),
        ("addresses", before.context, after.context),
        ("mechanism", before.mechanism, after.mechanism),
    ):
        if was != came:
            raise StoryError(
                f"the refresh has changed the {what}: {was} before, {came} after", hint="see the hops above"
            )


async def _closed(cluster: Cluster, nsc: LabClient, nse: LabEndpoint) -> None:
    for pod in (nsc.pod, nse.pod):
        if links := await pod.links():
            raise StoryError(f"pod {pod.name} still has {', '.join(link.name for link in links)}", hint="see its alias")
    counts = await cluster.counts()
    if counts.of("connections") or counts.of("addresses") or counts.of("joined"):
        raise StoryError(f"left after the close: {counts}", hint="see the hops above")


def _nothing_left(cluster: Cluster, folder: Path) -> None:
    """Namespaces take their interfaces and rules with them; sockets lie in the folder."""
    left = (
        [f"namespace {name}" for name in list_namespaces(cluster.name)] if cluster.mode.ground is Ground.KERNEL else []
    )
    if folder.exists():
        left += [str(path) for path in (folder, *folder.rglob("*"))]
    if left:
        raise StoryError(f"left on this machine: {', '.join(left)}", hint="remove it by hand")


def _left_text(mode: Mode) -> str:
    if mode.ground is Ground.KERNEL:
        return "no namespace, interface, rule or socket file is left on this machine"
    return "no socket file is left on this machine"


def can_do_namespaces() -> str:
    """Why this machine cannot play it with real packets; empty where it can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    return Mode(ground=Ground.KERNEL).why_not()


async def why_simulated() -> str:
    """`can_do_namespaces`, off the event loop."""
    return await asyncio.to_thread(can_do_namespaces)
