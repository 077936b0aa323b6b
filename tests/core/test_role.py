# SPDX-License-Identifier: Apache-2.0
"""The lifetime of a hop: services, listeners, errors, and being killed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest

from nsm_sdk.api import Connection, NetworkServiceEndpoint
from nsm_sdk.core import (
    Chain,
    Listen,
    RegistryElement,
    RegistryNext,
    Role,
    Runtime,
    Served,
    Service,
    WatchElement,
)
from nsm_sdk.errors import Exhausted, NsmError, ServingTwice
from nsm_sdk.testing import Park, Probe, sample_request, settled, virtual_time
from tests.core.elements import Branches, Passive, UsesTable


class Noted(Service):
    """Writes down when it starts and stops."""

    def __init__(self, name: str, log: list[str], *, fails: bool = False, slow: float = 0.0) -> None:
        self.name = name
        self.log = log
        self.fails = fails
        self.slow = slow

    async def start(self, runtime: Runtime) -> None:
        if self.fails:
            raise Exhausted(f"{self.name} cannot start")
        self.log.append(f"start {self.name}")

    async def stop(self) -> None:
        if self.slow:
            await anyio.sleep(self.slow)
        self.log.append(f"stop {self.name}")


class Shareable(Noted):
    shareable = True


class Holds(UsesTable):
    """Holds one of them."""

    def __init__(self, service: Service) -> None:
        self.service = service


def listener(name: str, log: list[str], *, fails: bool = False) -> Listen:
    @asynccontextmanager
    async def opened(served: Served) -> AsyncGenerator[str, None]:
        if fails:
            raise Exhausted(f"{name} is taken")
        log.append(f"open {name}")
        try:
            yield f"inproc://{name}"
        finally:
            log.append(f"close {name}")

    def listen(served: Served) -> AbstractAsyncContextManager[str]:
        return opened(served)

    return listen


async def test_services_start_in_order_and_stop_in_reverse_round_the_listeners() -> None:
    log: list[str] = []
    chain = Chain("hop", Holds(Noted("b", log)), Branches(Holds(Noted("c", log)), Passive()))
    role = Role("hop", connection=chain, services=[Noted("a", log)])
    async with role.serving(listen=[listener("x", log), listener("y", log)]) as running:
        log.append("body")
        assert running.urls == ("inproc://x", "inproc://y")
    assert log == (
        "start a,start b,start c,open x,open y,body,close y,close x,stop c,stop b,stop a".split(",")  # noqa: SIM905
    )


async def test_a_service_that_several_hold_starts_once() -> None:
    log: list[str] = []
    one = Noted("one", log)
    registry: Chain[RegistryNext[NetworkServiceEndpoint]] = Chain("nse", RegistryElement[NetworkServiceEndpoint]())
    role = Role("hop", connection=Chain("hop", Holds(one), Holds(one)), nse=registry, services=[one])
    async with role.serving():
        assert log == ["start one"]
    assert log == ["start one", "stop one"]


async def test_what_is_offered_is_bound_and_the_rest_is_none() -> None:
    role = Role("hop", connection=Chain("hop", Probe()), monitor=Chain("monitor", WatchElement()))
    async with role.serving() as running:
        assert running.bound.connection is not None
        assert running.bound.monitor is not None
        assert running.bound.ns is None
        assert running.bound.nse is None
        assert running.find(Probe) is not None
        assert running.find(WatchElement) is not None
        assert running.find(Park) is None
        assert [chain.name for chain in running.chains] == ["hop", "monitor"]
        call = running.call(timeout=5.0, url="inproc://x")
        assert call.url == "inproc://x"
        assert 0 < call.remaining() <= 5.0


async def test_serving_twice_is_refused_and_harms_nobody() -> None:
    log: list[str] = []
    role = Role("hop", connection=Chain("hop", Holds(Noted("one", log))))
    async with role.serving():
        with pytest.raises(ServingTwice, match="Noted is in use") as caught:
            async with role.serving():
                pytest.fail("it must not be served twice")
        assert caught.value.hint
        assert log == ["start one"]
    async with role.serving():
        assert log == ["start one", "stop one", "start one"]


async def test_shareable_services_stop_with_their_last_role() -> None:
    log: list[str] = []
    shared = Shareable("shared", log)
    async with Role("a", services=[shared]).serving():
        async with Role("b", services=[shared]).serving():
            assert log == ["start shared"]
        assert log == ["start shared"]
    assert log == ["start shared", "stop shared"]


async def test_errors_of_the_body_come_out_unwrapped() -> None:
    log: list[str] = []
    with pytest.raises(ZeroDivisionError, match="mine"):
        async with Role("hop", services=[Noted("a", log)]).serving():
            raise ZeroDivisionError("mine")
    assert log == ["start a", "stop a"]
    error = Exhausted("mine")
    with pytest.raises(Exhausted) as caught:
        async with Role("hop").serving():
            raise error
    assert caught.value is error


async def test_a_service_that_cannot_start_undoes_those_before_it() -> None:
    log: list[str] = []
    services = [Noted("a", log), Noted("b", log, fails=True), Noted("c", log)]
    with pytest.raises(Exhausted, match="b cannot start"):
        async with Role("hop", services=services).serving():
            pytest.fail("it must not be served")
    assert log == ["start a", "stop a"]
    services[1].fails = False
    async with Role("hop", services=services).serving():
        assert log[2:] == ["start a", "start b", "start c"]


async def test_a_listener_that_cannot_open_undoes_the_rest() -> None:
    log: list[str] = []
    listen = [listener("x", log), listener("y", log, fails=True)]
    with pytest.raises(Exhausted, match="y is taken"):
        async with Role("hop", services=[Noted("a", log)]).serving(listen=listen):
            pytest.fail("it must not be served")
    assert log == ["start a", "open x", "close x", "stop a"]


@virtual_time
async def test_cancelled_while_it_starts_it_undoes_what_has_started() -> None:
    log: list[str] = []

    class Stuck(Service):
        async def start(self, runtime: Runtime) -> None:
            await anyio.sleep_forever()

    with anyio.move_on_after(5.0) as scope:
        async with Role("hop", services=[Noted("a", log), Stuck()]).serving():
            pytest.fail("it must not be served")
    assert scope.cancelled_caught
    assert log == ["start a", "stop a"]


@virtual_time
async def test_a_cancelled_body_still_shuts_down_in_order() -> None:
    log: list[str] = []
    with anyio.move_on_after(5.0) as scope:
        async with Role("hop", services=[Noted("a", log, slow=1.0)]).serving(listen=[listener("x", log)]):
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert log == ["start a", "open x", "close x", "stop a"]


@virtual_time
async def test_a_service_that_hangs_at_its_stop_is_left_after_a_while() -> None:
    log: list[str] = []
    loop = asyncio.get_running_loop()
    async with Role("hop", services=[Noted("a", log), Noted("stuck", log, slow=1e9)]).serving():
        pass
    assert log == ["start a", "start stuck", "stop a"]
    assert loop.time() == pytest.approx(5.0)


@virtual_time
async def test_a_service_whose_stop_fails_does_not_keep_the_others() -> None:
    log: list[str] = []

    class Sour(Service):
        async def stop(self) -> None:
            raise Exhausted("at the stop")

    async with Role("hop", services=[Noted("a", log), Sour()]).serving():
        pass
    assert log == ["start a", "stop a"]


@virtual_time
async def test_a_killed_role_ends_alone() -> None:
    log: list[str] = []
    park = Park()
    async with Role("starter").serving() as starter:
        role = Role("hop", connection=Chain("hop", park), services=[Noted("a", log)])
        async with role.serving(listen=[listener("x", log)]) as running:
            running.runtime.spawn(anyio.sleep_forever, "background")
            running.runtime.after(1.0, lambda: log.append("timer"))
            starter.runtime.spawn(anyio.sleep_forever, "of the starter")
            running.kill()
            running.kill()
            await running.wait_ended()
            assert running.runtime.killed
            assert running.runtime.running == {}
            await asyncio.sleep(5.0)
            # The body goes on, and the other role as well.
            assert starter.runtime.running == {"of the starter": 1}
        assert log == ["start a", "open x", "close x", "stop a"]


@virtual_time
async def test_a_killed_role_can_be_served_again() -> None:
    log: list[str] = []
    role = Role("hop", services=[Noted("a", log)])
    async with role.serving() as running:
        running.kill()
        await running.wait_ended()
        async with role.serving():
            assert log == ["start a", "stop a", "start a"]


@virtual_time
async def test_calls_get_time_to_end_before_services_stop() -> None:
    running_at_stop: list[int] = []
    park = Park(late=True)

    class Counts(Service):
        async def stop(self) -> None:
            running_at_stop.append(running.runtime.calls)

    async with Role("hop", connection=Chain("hop", park), services=[Counts()]).serving(drain=10.0) as running:
        bound = running.bound.connection
        assert bound is not None
        call = running.call()

        async def ask(deadline: float) -> Connection:
            return await bound.request(call, sample_request())

        answer = asyncio.ensure_future(running.runtime.serve(ask, 60.0, "Request"))
        await park.reached()
        asyncio.get_running_loop().call_later(4.0, park.release)
    assert running_at_stop == [0]
    assert await answer == sample_request().connection
    assert asyncio.get_running_loop().time() == pytest.approx(4.0)


@virtual_time
async def test_calls_that_do_not_end_are_cut_off_after_the_drain() -> None:
    park = Park()
    errors: list[BaseException] = []
    role = Role("hop", connection=Chain("hop", park))
    async with anyio.create_task_group() as tasks, role.serving(drain=3.0) as running:
        bound = running.bound.connection
        assert bound is not None

        async def ask() -> None:
            try:
                await running.runtime.serve(
                    lambda deadline: bound.request(running.call(), sample_request()), 60.0, "Request"
                )
            except NsmError as error:
                errors.append(error)

        tasks.start_soon(ask)
        await park.reached()
    assert asyncio.get_running_loop().time() == pytest.approx(3.0)
    assert len(errors) == 1
    assert park.parked == 0


@virtual_time
async def test_the_role_ends_when_asked_while_nothing_runs() -> None:
    async with Role("empty").serving() as running:
        assert running.chains == ()
        await settled()
    await running.wait_ended()
    assert asyncio.get_running_loop().time() == 0.0


@virtual_time
async def test_elements_tell_at_drain() -> None:
    log: list[str] = []
    async with Role("hop", services=[Noted("a", log)]).serving() as running:
        running.runtime.at_drain(lambda: log.append("draining"))
    assert log == ["start a", "draining", "stop a"]
