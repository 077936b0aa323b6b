# SPDX-License-Identifier: Apache-2.0
"""Whatever breaks wherever: nothing is left.

Does:  fails, loses the answer, cancels and aborts at every point of a registration, an unregistration and a choice of
       an endpoint, over three hops in one process, and looks at what is left.
Place: tests of the registry room.
State: none.
"""

from __future__ import annotations

import asyncio
from typing import Any

from nsm_sdk.api import NetworkService
from nsm_sdk.core import Query, Running, find_all
from nsm_sdk.registry import Begin, Candidates, Discover, LocalBypass, Memory
from nsm_sdk.testing import Faults, VirtualClock, explore, rig, settled
from nsm_sdk.transport import Dialer, listen
from tests.registry.chains import manager_role, registrar_role, registry_role
from tests.registry.test_store import nse
from tests.registry.world import Hosts

REGISTRY, MANAGER = "inproc://faults-registry", "inproc://faults-manager"


def _endpoints(running: Running) -> Any:
    return next(chain for chain in running.chains if chain.name == "endpoints")


async def _registration(faults: Faults, *, then_unregister: bool) -> None:
    clock = VirtualClock()
    async with (
        registry_role().serving(listen=[listen(REGISTRY)], clock=clock, observe=faults) as top,
        manager_role(Dialer(), REGISTRY, url=MANAGER).serving(
            listen=[listen(MANAGER)], clock=clock, observe=faults
        ) as mid,
        registrar_role(Dialer(), MANAGER).serving(clock=clock, observe=faults) as low,
    ):
        registered: Any = low.bound.nse

        async def work() -> None:
            await registered.register(low.call(timeout=5), nse("a", "svc", url="tcp://a:1"))
            if then_unregister:
                await registered.unregister(low.call(timeout=5), nse("a"))

        ended = await faults.run(work())
        await settled()
        begun = _endpoints(low).find(Begin).names()
        if ended.error is None and not then_unregister:
            assert begun == ["a"]
            await asyncio.sleep(300)
            store = _endpoints(top).find(Memory).store
            assert len(store) == 1, "it is kept alive"
            return
        if begun:
            # Registered, but the unregistration was cut off before its turn: the caller does it again.
            await registered.unregister(low.call(timeout=5), nse("a"))
        await asyncio.sleep(120)
        assert _endpoints(low).find(Begin).names() == []
        assert _endpoints(mid).find(Begin).names() == []
        assert _endpoints(top).find(Begin).names() == []
        assert len(_endpoints(top).find(Memory).store) == 0
        assert mid.find(LocalBypass).urls() == {}
        for running in (low, mid, top):
            assert running.runtime.running == {}, running.runtime.name
            assert len(running.runtime.timers) == 0, running.runtime.name


def test_a_registration_that_breaks_anywhere() -> None:
    async def scenario(faults: Faults) -> None:
        await _registration(faults, then_unregister=False)

    assert len(explore(scenario)) > 20


def test_an_unregistration_that_breaks_anywhere() -> None:
    async def scenario(faults: Faults) -> None:
        await _registration(faults, then_unregister=True)

    assert len(explore(scenario)) > 40


def test_a_choice_that_breaks_anywhere() -> None:
    async def scenario(faults: Faults) -> None:
        clock = VirtualClock()
        async with registry_role().serving(listen=[listen(REGISTRY)], clock=clock) as top:
            services: Any = top.bound.ns
            endpoints: Any = top.bound.nse
            await services.register(top.call(), NetworkService(name="service-1", payload="IP"))
            for name in ("nse-1", "nse-2"):
                await endpoints.register(top.call(), nse(name, "service-1", url=f"tcp://{name}:1"))
            dialer = Dialer()
            hosts = Hosts()
            candidates = Candidates(lambda: dialer(REGISTRY))
            async with rig(Discover(candidates), hosts, observe=faults) as bench:
                await faults.run(bench.request(timeout=10))
                # Above Begin an answer is lost to the caller alone, who then closes what it asked for.
                await bench.close()
                await asyncio.sleep(5)
                left = await bench.left()
                assert left.slots == []
                assert len(candidates) <= 2
                assert left.tasks == ["candidates"] * bool(len(candidates))
                assert len(await find_all(endpoints, top.call(), Query(nse("", "service-1")))) == 2

    assert len(explore(scenario)) > 4
