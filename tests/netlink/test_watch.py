# SPDX-License-Identifier: Apache-2.0
"""Events of a namespace, and the thread that does netlink.

Does:  sees links go up, down and away and addresses come and go, at once; a slow kernel never holds the loop.
Place: SocketWatch, NetlinkThread, namespaces.
State: namespaces of one test.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from nsm_sdk.errors import AlreadyExists, FailedPrecondition
from nsm_sdk.mechanisms import Address
from nsm_sdk.mechanisms.model import Add, Remove, SetLink
from nsm_sdk.mechanisms.ports import Kernel, NewEnd
from nsm_sdk.netlink import (
    KernelAdapter,
    LinkEvent,
    NetlinkThread,
    SocketWatch,
    create_namespace,
    delete_namespace,
    list_namespaces,
    namespace_url,
    open_namespace,
    probe_now,
    run_inside,
    temporary_namespace,
)
from nsm_sdk.netlink import watch as watch_module
from nsm_sdk.testing import settled
from tests.run import MARK

pytestmark = pytest.mark.netns


@pytest.fixture
def pair() -> Iterator[tuple[str, str]]:
    found = probe_now()
    if not found.works("namespaces"):
        pytest.skip(found["namespaces"].reason)
    with temporary_namespace(MARK) as a, temporary_namespace(MARK) as b:
        yield a, b


def make(kernel: Kernel, a: str, b: str) -> tuple[int, int]:
    ends = NewEnd(name="near", mac="02:00:00:00:00:01"), NewEnd(name="far", mac="02:00:00:00:00:02")
    return kernel.join(kernel.open(namespace_url(a)), ends[0], kernel.open(namespace_url(b)), ends[1])


async def first(watch: SocketWatch, kind: str) -> LinkEvent:
    """The next event of that kind."""
    async with asyncio.timeout(10):
        while True:
            event = await watch.__anext__()
            if event.kind == kind:
                return event


async def test_links_and_addresses_are_seen(pair: tuple[str, str]) -> None:
    a, b = pair
    netlink = NetlinkThread()
    near, far = await netlink.run(lambda kernel: make(kernel, a, b))

    async def do(space: str, index: int, *ops: SetLink | Add | Remove) -> None:
        assert not await netlink.run(lambda kernel: kernel.open(namespace_url(space)).apply(index, ops))

    async with await netlink.watch(namespace_url(a)) as watch:
        await do(b, far, SetLink(up=True))
        up = await first(watch, "up")
        assert (up.index, up.name) == (near, "near")
        await do(a, near, Add(Address("10.0.0.1", 32)))
        assert (await first(watch, "address-added")).address == "10.0.0.1"
        await do(a, near, Remove(Address("10.0.0.1", 32)))
        assert (await first(watch, "address-removed")).index == near
        await do(b, far, SetLink(up=False))
        await first(watch, "down")
        await netlink.run(lambda kernel: kernel.open(namespace_url(b)).delete_link(far))
        await first(watch, "deleted")
    with pytest.raises(StopAsyncIteration):
        await watch.__anext__()
    await netlink.aclose()


async def test_a_namespace_that_ends_takes_its_links_along(pair: tuple[str, str]) -> None:
    """Nobody of us keeps it alive for long: the other side hears of it."""
    a, b = pair
    netlink = NetlinkThread(idle=0.02)
    near, _ = await netlink.run(lambda kernel: make(kernel, a, b))
    async with await netlink.watch(namespace_url(a)) as watch:
        delete_namespace(b)
        assert (await first(watch, "deleted")).index == near
    await netlink.aclose()


async def test_closing_a_watch_wakes_its_reader(pair: tuple[str, str]) -> None:
    netlink = NetlinkThread()
    watch = await netlink.watch(namespace_url(pair[0]))

    async def read() -> list[str]:
        return [event.kind async for event in watch]

    reader = asyncio.create_task(read())
    await asyncio.sleep(0)
    await watch.aclose()
    await watch.aclose()
    assert await reader == []
    await netlink.aclose()


async def test_watching_what_is_gone() -> None:
    with pytest.raises(FailedPrecondition):
        await NetlinkThread().watch("file:///run/netns/nsm-there-is-none")


async def test_functions_run_in_order_and_a_cancelled_one_not_at_all() -> None:
    netlink = NetlinkThread()
    order: list[int] = []
    hold = threading.Event()
    first = asyncio.create_task(netlink.run(lambda _: order.append(int(hold.wait(5)))))
    await asyncio.sleep(0)
    second = asyncio.create_task(netlink.run(lambda _: order.append(2)))
    third = asyncio.create_task(netlink.run(lambda _: order.append(3)))
    await asyncio.sleep(0)
    second.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await second
    hold.set()
    await asyncio.gather(first, third)
    assert order == [1, 3]
    await netlink.aclose()
    assert await netlink.run(lambda _: 4) == 4
    await netlink.aclose()


async def test_errors_come_back_to_the_caller() -> None:
    netlink = NetlinkThread()
    with pytest.raises(ZeroDivisionError):
        await netlink.run(lambda _: 1 // 0)
    await netlink.aclose()


async def test_a_slow_kernel_does_not_hold_the_loop() -> None:
    netlink = NetlinkThread()
    ticks = 0
    job = asyncio.create_task(netlink.run(lambda _: time.sleep(0.05)))
    while not job.done():
        ticks += 1
        await asyncio.sleep(0)
    assert ticks > 10
    await netlink.aclose()


def test_a_descriptor_names_a_namespace_too(pair: tuple[str, str]) -> None:
    handle, identity = open_namespace(namespace_url(pair[0]))
    kernel = KernelAdapter()
    try:
        assert kernel.open(handle).id == identity
        assert kernel.open(f"/proc/{os.getpid()}/fd/{handle}").id == identity
        assert run_inside(handle, lambda: os.stat("/proc/thread-self/ns/net").st_ino) == identity.ino
    finally:
        kernel.close()
        os.close(handle)


def test_namespaces_are_made_listed_and_removed() -> None:
    if not probe_now().works("namespaces"):
        pytest.skip(probe_now()["namespaces"].reason)
    own = os.stat("/proc/thread-self/ns/net").st_ino
    name = create_namespace(prefix=MARK)
    try:
        assert name in list_namespaces(MARK)
        assert run_inside(name, lambda: os.stat("/proc/thread-self/ns/net").st_ino) != own
        with pytest.raises(AlreadyExists):
            create_namespace(name)
    finally:
        assert delete_namespace(name)
    assert not delete_namespace(name)
    assert name not in list_namespaces()
    assert os.stat("/proc/thread-self/ns/net").st_ino == own
    with pytest.raises(FailedPrecondition):
        create_namespace("a/b")


def test_the_probe_tells_reasons_and_leaves_nothing() -> None:
    found = probe_now()
    # those of other programs come and go
    assert list_namespaces(f"nsm-probe-{os.getpid()}-") == []
    assert all(one.works or one.reason for one in found.found)
    assert found["never heard of"].reason == "not tried"
    assert ("KERNEL" in found.mechanisms) == (found.works("veth") and found.works("namespaces"))


async def test_a_watch_that_is_given_up_while_it_opens_leaves_no_socket(
    pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[socket.socket] = []
    began, go_on = threading.Event(), threading.Event()
    subscribe = watch_module._subscribe

    def slowly(url: str | int) -> socket.socket:
        opened.append(subscribe(url))
        began.set()
        go_on.wait(10)
        return opened[0]

    monkeypatch.setattr(watch_module, "_subscribe", slowly)
    opening = asyncio.create_task(SocketWatch.open(namespace_url(pair[0])))
    assert await asyncio.to_thread(began.wait, 10)
    opening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await opening
    go_on.set()
    await asyncio.get_running_loop().shutdown_default_executor()
    await settled()
    assert opened[0].fileno() < 0
