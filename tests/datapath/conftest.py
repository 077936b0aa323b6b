# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces and a kernel datapath between them.

Does:  makes namespaces for one test, joins connections between them, looks at them from inside, pings.
Place: tests on real namespaces; skipped with the reason where there are none.
State: the namespaces of one test, removed at its end.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from nsm_sdk.api import Connection, Mechanism
from nsm_sdk.core import Runtime
from nsm_sdk.heal.probes.icmp import echo_reply, echo_request
from nsm_sdk.mechanisms import KernelDatapath, Link, Observed
from nsm_sdk.mechanisms.model import Op
from nsm_sdk.mechanisms.ports import Joint
from nsm_sdk.netlink import (
    KernelAdapter,
    NetlinkThread,
    create_namespace,
    delete_namespace,
    namespace_url,
    probe_now,
    run_inside,
)
from tests.run import MARK


@functools.cache
def why_not() -> str:
    """Why this machine cannot run these tests; empty where it can."""
    found = probe_now()
    lacking = [found[name] for name in ("namespaces", "veth") if not found.works(name)]
    return "; ".join(f"{one.name}: {one.reason}" for one in lacking)


@pytest.fixture(autouse=True)
def _needs_namespaces() -> None:
    if why_not():
        pytest.skip(why_not())


class World:
    """Namespaces `a` (client) and `b` (endpoint), and what is in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []
        self.a = self.namespace()
        self.b = self.namespace()
        self.netlinks: list[NetlinkThread] = []

    def namespace(self) -> str:
        name = create_namespace(prefix=MARK)
        self.names.append(name)
        return name

    def records(self) -> list[Path]:
        """The files of the state folder."""
        return sorted(self.folder.iterdir())

    def drop(self, name: str) -> None:
        delete_namespace(name)

    async def datapath(self, *, name: str = "fwd", idle: float = 1.0, records: bool = True) -> KernelDatapath:
        """A datapath as a freshly started forwarder has it, on this test's state folder, with no sweep planned."""
        netlink = NetlinkThread(idle=idle)
        self.netlinks.append(netlink)
        made = KernelDatapath(netlink, name=name, state=self.folder if records else None, orphan_timeout=None)
        await made.start(NO_RUNTIME)
        return made

    def joint(self, number: int = 1, *, payload: str = "IP", a: str = "", b: str = "", **names: str) -> Joint:
        """Connection `number`, with addresses of both families on both ends."""
        conn = Connection(id=f"fwd-{number}", payload=payload)
        conn.path.path_segments.add(name="nsc", id=f"nsc-{number}")
        conn.path.path_segments.add(name="fwd", id=f"fwd-{number}")
        conn.path.index = 1
        ip = conn.context.ip_context
        ip.src_ip_addrs.extend([f"172.16.{number}.1/32", f"fd00:{number:x}::1/128"])
        ip.dst_ip_addrs.extend([f"172.16.{number}.0/32", f"fd00:{number:x}::/128"])
        ends = [
            Mechanism(
                cls="LOCAL",
                type="KERNEL",
                parameters={"inodeURL": namespace_url(space), "name": names.get(key, f"{key}-{number}")},
            )
            for key, space in (("near", a or self.a), ("far", b or self.b))
        ]
        return Joint(connection=conn, near=ends[0], far=ends[1])

    def links(self, space: str) -> dict[str, Link]:
        """All interfaces but the loopback, by name."""
        kernel = KernelAdapter(open_ping=False)
        try:
            return {link.name: link for link in kernel.open(namespace_url(space)).links() if link.name != "lo"}
        finally:
            kernel.close()

    def see(self, space: str, name: str, tables: range = range(0)) -> Observed:
        kernel = KernelAdapter(open_ping=False)
        try:
            opened = kernel.open(namespace_url(space))
            link = opened.link(name=name)
            return opened.observe(link.index if link is not None else 0, tables)
        finally:
            kernel.close()

    def delete(self, space: str, name: str) -> None:
        """What `ip link del` does."""
        kernel = KernelAdapter(open_ping=False)
        try:
            opened = kernel.open(namespace_url(space))
            link = opened.link(name=name)
            assert link is not None
            assert opened.delete_link(link.index)
        finally:
            kernel.close()

    def ping(self, space: str, source: str, target: str, *, size: int = 56, timeout: float = 2.0) -> bool:
        """One echo request from inside `space`, and whether it was answered in time."""
        with contextlib.suppress(OSError), run_inside(space, lambda: echo_channel(source, timeout)) as channel:
            return not echo(channel, target, size=size)
        return False


def apply_to(space: str, name: str, *ops: Op) -> None:
    """Does to an interface what a person with `ip` might do."""
    kernel = KernelAdapter(open_ping=False)
    try:
        opened = kernel.open(namespace_url(space))
        link = opened.link(name=name)
        assert link is not None
        assert not opened.apply(link.index, ops)
    finally:
        kernel.close()


NO_RUNTIME = Runtime.__new__(Runtime)


def echo_channel(source: str, timeout: float) -> socket.socket:
    """A raw socket for echo requests from `source`, in the namespace of the calling thread."""
    six = ":" in source
    family, protocol = (socket.AF_INET6, 58) if six else (socket.AF_INET, 1)
    channel = socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        if not six:
            channel.setsockopt(socket.IPPROTO_IP, 10, 2)
        channel.bind((source, 0))
        channel.settimeout(timeout)
    except BaseException:
        channel.close()
        raise
    return channel


def echo(channel: socket.socket, target: str, number: int = 1, size: int = 56) -> str:
    """Sends one request, not fragmented, and waits for its answer; why there was none, else nothing."""
    identity = os.getpid() & 0xFFFF
    try:
        channel.sendto(echo_request(channel.family, identity, number, bytes(size)), (target, 0))
        while True:
            data, sender = channel.recvfrom(65_535)
            found = echo_reply(channel.family, data)
            if sender[0] == target and found is not None and found[:2] == (identity, number):
                return ""
    except OSError as error:
        return str(error)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path / "state")
    try:
        yield made
    finally:
        for netlink in made.netlinks:
            await netlink.aclose()
        for name in made.names:
            delete_namespace(name)


@pytest.fixture
def spaces() -> Iterator[list[str]]:
    """Names of namespaces that the test makes; removed at the end."""
    names: list[str] = []
    yield names
    for name in names:
        delete_namespace(name)
