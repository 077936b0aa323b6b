# SPDX-License-Identifier: Apache-2.0
"""How registrations begin, stay, come back and end.

Does:  `Begin`, `Expire`, `Refresh`, `Heal`, `Retry`, in virtual time, alone and through registry and manager.
Place: tests of the registry room.
State: none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint, Timestamp, seconds
from nsm_sdk.api.path import timestamp
from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY
from nsm_sdk.core import (
    NS,
    NSE,
    Call,
    Cause,
    Chain,
    Query,
    RegistryElement,
    RegistryNext,
    Role,
    Running,
    find_all,
)
from nsm_sdk.errors import FailedPrecondition, InvalidRequest, NsmError, PermissionDenied, Unavailable, Unimplemented
from nsm_sdk.registry import (
    Begin,
    ByDomain,
    Connect,
    Expire,
    Heal,
    LocalBypass,
    Memory,
    Refresh,
    RegistrationTime,
    Retry,
)
from nsm_sdk.testing import RegistryFailTimes, RegistryProbe, VirtualClock, settled, virtual_time
from nsm_sdk.transport import Dialer, listen
from tests.registry.chains import jwt, manager_role, nowhere, registrar_role, registry_role
from tests.registry.test_store import Reader, nse


@dataclass
class Bench:
    """A served chain of endpoint registry elements."""

    running: Running
    probe: RegistryProbe[NetworkServiceEndpoint]

    @property
    def bound(self) -> RegistryNext[NetworkServiceEndpoint]:
        assert self.running.bound.nse is not None
        return self.running.bound.nse

    async def register(self, entry: NetworkServiceEndpoint, **call: Any) -> NetworkServiceEndpoint:
        return await self.bound.register(self.running.call(**call), NSE.copy(entry))

    async def unregister(self, entry: NetworkServiceEndpoint) -> None:
        await self.bound.unregister(self.running.call(), NSE.copy(entry))

    def verbs(self) -> list[str]:
        return [passed.verb for passed in self.probe.seen.calls]


@asynccontextmanager
async def bench(
    *elements: RegistryElement[NetworkServiceEndpoint],
    probe: RegistryProbe[NetworkServiceEndpoint] | None = None,
    below: tuple[RegistryElement[NetworkServiceEndpoint], ...] = (),
) -> AsyncGenerator[Bench, None]:
    probe = probe or RegistryProbe()
    role = Role("bench", nse=Chain("bench", *elements, probe, *below))
    async with role.serving(clock=VirtualClock()) as running:
        yield Bench(running, probe)


class Slow(RegistryElement[NetworkServiceEndpoint]):
    """Takes a second."""

    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        await asyncio.sleep(1)
        return await next.register(call, entry)


# -- Begin ------------------------------------------------------------------------------------------------------------


@virtual_time
async def test_one_at_a_time_per_name_and_names_beside_each_other() -> None:
    async with bench(Begin(NSE), Slow()) as b:
        clock = b.running.runtime.clock
        began = clock.now()
        await asyncio.gather(*(b.register(nse(name)) for name in ("a", "a", "b", "c")))
        assert clock.now() - began == 2
        assert b.running.find(Begin).names() == ["a", "b", "c"]


@virtual_time
async def test_a_waiter_honours_its_own_time() -> None:
    async with bench(Begin(NSE), Slow()) as b:
        first = asyncio.create_task(b.register(nse("a")))
        await settled()
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.5):
                await b.register(nse("a"))
        await first
        assert b.verbs() == ["register"]


@virtual_time
async def test_a_first_registration_that_fails_is_undone() -> None:
    async with bench(Begin(NSE), probe=RegistryFailTimes(1, PermissionDenied("no"))) as b:
        with pytest.raises(PermissionDenied):
            await b.register(nse("a", "svc", url="tcp://1:1"))
        await settled()
        assert b.verbs() == ["register", "unregister"]
        assert b.probe.seen.calls[1].message == nse("a", "svc", url="tcp://1:1")
        assert len(b.running.find(Begin)) == 0
        await b.register(nse("a"))
        await b.register(nse("a"))
        assert b.verbs() == ["register", "unregister", "register", "register"]


@virtual_time
async def test_a_registration_again_that_fails_takes_nothing_away() -> None:
    """The hop was restarted: what it takes for the first registration is none."""
    bypass = LocalBypass("tcp://manager:1")
    async with bench(Begin(NSE), bypass, probe=RegistryFailTimes(1, Unavailable("away"))) as b:
        again = nse("a", "svc", url="tcp://1:1")
        again.initial_registration_time.seconds = 5
        with pytest.raises(Unavailable):
            await b.register(again)
        await settled()
        assert b.verbs() == ["register"]
        assert len(b.running.find(Begin)) == 0
        assert bypass.urls() == {}
        await b.register(again)
        await b.unregister(again)
        assert b.verbs() == ["register", "register", "unregister"]


@virtual_time
async def test_a_service_is_not_undone_because_it_is_everybodys() -> None:
    probe: RegistryFailTimes[NetworkService] = RegistryFailTimes(1, Unavailable("gone"))
    role = Role("r", ns=Chain("r", Begin(NS), probe))
    async with role.serving(clock=VirtualClock()) as running:
        assert running.bound.ns is not None
        with pytest.raises(Unavailable):
            await running.bound.ns.register(running.call(), NetworkService(name="svc"))
        await settled()
        assert [passed.verb for passed in probe.seen.calls] == ["register"]
        assert len(running.find(Begin)) == 0
        await running.bound.ns.register(running.call(), NetworkService(name="svc"))
        await running.bound.ns.unregister(running.call(), NetworkService(name="svc"))
        assert [passed.verb for passed in probe.seen.calls] == ["register", "register", "unregister"]


@virtual_time
async def test_a_caller_that_went_away_leaves_nothing() -> None:
    async with bench(Begin(NSE), Slow()) as b:
        with pytest.raises(TimeoutError):
            with anyio.fail_after(0.5):
                await b.register(nse("a"))
        await settled()
        assert b.verbs() == ["unregister"]
        assert len(b.running.find(Begin)) == 0


@virtual_time
async def test_a_refresh_that_fails_changes_nothing() -> None:
    probe: RegistryFailTimes[NetworkServiceEndpoint] = RegistryFailTimes(0, Unavailable("gone"))
    async with bench(Begin(NSE), probe=probe) as b:
        await b.register(nse("a", "one"))
        probe.times = 2
        with pytest.raises(Unavailable):
            await b.register(nse("a", "two"))
        await settled()
        assert b.verbs() == ["register", "register"]
        await b.unregister(nse("a"))
        assert b.probe.seen.calls[-1].message == nse("a", "one"), "what was registered is what is unregistered"


@virtual_time
async def test_an_unregistration_that_fails_can_be_repeated_and_else_expires() -> None:
    probe: RegistryFailTimes[NetworkServiceEndpoint] = RegistryFailTimes(2, Unavailable("gone"), verb="unregister")
    bypass = LocalBypass("tcp://manager:1")
    async with bench(Begin(NSE), Expire(60), bypass, probe=probe) as b:
        for name in "ab":
            await b.register(nse(name, "svc", url="tcp://1:1"))
            with pytest.raises(Unavailable):
                await b.unregister(nse(name))
            assert name in b.running.find(Begin).names()
        await b.unregister(nse("a"))
        assert list(bypass.urls()) == ["b"]
        probe.times = 99
        await asyncio.sleep(61)
        assert bypass.urls() == {}
        assert len(b.running.find(Begin)) == 0
        assert len(b.running.runtime.timers) == 0


@virtual_time
async def test_names() -> None:
    async with bench(Begin(NSE)) as b:
        with pytest.raises(InvalidRequest):
            await b.register(NetworkServiceEndpoint())
        await b.unregister(NetworkServiceEndpoint())
        await b.unregister(nse("never"))
        await b.unregister(nse("never"))
        assert b.verbs() == ["unregister", "unregister"], "it may be known below"


class Posts(RegistryElement[NetworkServiceEndpoint]):
    """Lends the events of the last registration to the test."""

    needs = (Begin,)
    call: Call
    causes: list[Cause]

    def __init__(self) -> None:
        self.causes = []

    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        self.call = call
        self.causes.append(call.cause)
        return await next.register(call, entry)

    async def unregister(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> None:
        self.causes.append(call.cause)
        await next.unregister(call, entry)


@virtual_time
async def test_posts_coalesce_and_a_close_that_was_overtaken_is_needless() -> None:
    posts = Posts()
    told: list[str] = []

    def done(outcome: object, error: object) -> None:
        told.append(str(outcome))

    async with bench(Begin(NSE), posts, Slow()) as b:
        await b.register(nse("a"), onward={"x": "y"}, timeout=5)
        events = posts.call.events
        events.refresh(done)
        events.refresh(done)
        events.refresh(done, lambda: False)
        await asyncio.sleep(1.1)
        assert told == ["done", "done", "done"]
        assert posts.causes == [Cause.CALL, Cause.REFRESH]
        assert posts.call.onward == {"x": "y"}
        assert posts.call.remaining() == pytest.approx(3.9)
        events.refresh(done, lambda: False)
        await settled()
        assert told.pop() == "skipped"
        running = asyncio.create_task(b.register(nse("a")))
        await settled()
        events.close(done)
        await running
        await settled()
        assert told.pop() == "skipped"
        events.close(done)
        events.refresh(done)
        await settled()
        assert told == ["done", "done", "done", "skipped", "done"]
        assert posts.causes[-1] is Cause.CLOSE
        events.refresh(done)
        events.close()
        await settled()
        assert told[-1] == "skipped"


@virtual_time
async def test_a_post_that_fails_says_so() -> None:
    posts = Posts()
    errors: list[BaseException | None] = []
    probe: RegistryFailTimes[NetworkServiceEndpoint] = RegistryFailTimes(0, Unavailable("gone"))
    async with bench(Begin(NSE), posts, probe=probe) as b:
        await b.register(nse("a"))
        probe.times = 9
        posts.call.events.refresh(lambda outcome, error: errors.append(error))
        await settled()
    assert [type(error) for error in errors] == [Unavailable]


# -- Expire -----------------------------------------------------------------------------------------------------------


@virtual_time
async def test_an_endpoint_that_nobody_refreshes_goes() -> None:
    async with bench(Begin(NSE), Expire(60), RegistrationTime()) as b:
        answer = await b.register(nse("a"), timeout=15)
        wall = b.running.runtime.clock.wall
        assert seconds(answer.expiration_time) == pytest.approx(wall() + 60)
        await asyncio.sleep(44)
        assert b.verbs() == ["register"]
        await asyncio.sleep(2)
        assert b.verbs() == ["register", "unregister"]
        assert len(b.running.runtime.timers) == 0
        assert len(b.running.find(Begin)) == 0


@virtual_time
async def test_what_is_registered_again_lives_on() -> None:
    async with bench(Begin(NSE), Expire(60)) as b:
        answer = await b.register(nse("a"), timeout=15)
        for _ in range(5):
            await asyncio.sleep(40)
            renewed = await b.register(answer, timeout=15)
            assert seconds(renewed.expiration_time) > seconds(answer.expiration_time) + 39
            answer = renewed
        assert b.verbs() == ["register"] * 6


@virtual_time
async def test_a_life_that_was_asked_for() -> None:
    async with bench(Begin(NSE), Expire(60)) as b:
        wall = b.running.runtime.clock.wall
        short = nse("a")
        short.expiration_time.CopyFrom(timestamp(wall() + 10))
        assert seconds((await b.register(short)).expiration_time) == pytest.approx(wall() + 10)
        await asyncio.sleep(9.9)
        assert b.verbs() == ["register"]
        await asyncio.sleep(0.2)
        assert b.verbs() == ["register", "unregister"]


@virtual_time
async def test_tokens_end_a_life() -> None:
    async with bench(Begin(NSE), Expire(60)) as b:
        wall = b.running.runtime.clock.wall
        token = jwt(sub="spiffe://a/b", exp=wall() + 20)
        for metadata, life in (
            ({TOKEN_KEY: token}, 20.0),
            ({TOKEN_KEY: token, EXPIRES_KEY: timestamp(wall() + 10).ToJsonString()}, 10.0),
            ({TOKEN_KEY: token, EXPIRES_KEY: "later"}, 60.0),
            ({EXPIRES_KEY: timestamp(wall() + 10).ToJsonString()}, 60.0),
            ({TOKEN_KEY: "garbage"}, 60.0),
            ({TOKEN_KEY: jwt(exp=wall() - 5)}, 1.0),
        ):
            answer = await b.register(nse("a"), metadata=metadata)
            assert seconds(answer.expiration_time) - wall() == pytest.approx(life)


@virtual_time
async def test_an_expiry_in_the_past_is_none() -> None:
    async with bench(Begin(NSE), Expire(60)) as b:
        wall = b.running.runtime.clock.wall
        past = nse("a")
        past.expiration_time.CopyFrom(timestamp(wall() - 3600))
        assert seconds((await b.register(past)).expiration_time) == pytest.approx(wall() + 60)
        await asyncio.sleep(59)
        assert b.verbs() == ["register"]


@virtual_time
async def test_times_that_no_calendar_has() -> None:
    async with bench(Begin(NSE), RegistrationTime(), Expire(60)) as b:
        wall = b.running.runtime.clock.wall
        for odd in (Timestamp(seconds=1 << 62, nanos=-5), Timestamp(seconds=-(1 << 62), nanos=1 << 30)):
            entry = nse("a")
            entry.expiration_time.CopyFrom(odd)
            entry.initial_registration_time.CopyFrom(odd)
            for _ in range(2):
                assert seconds((await b.register(entry)).expiration_time) == pytest.approx(wall() + 60)
    async with bench(Begin(NSE), Expire(None)) as b:
        entry.expiration_time.CopyFrom(Timestamp(seconds=1 << 62, nanos=-5))
        assert (await b.register(entry)).expiration_time.seconds == 1 << 62


@virtual_time
async def test_a_failed_refresh_still_ends() -> None:
    probe: RegistryFailTimes[NetworkServiceEndpoint] = RegistryFailTimes(0, Unavailable("gone"))
    async with bench(Begin(NSE), Expire(60), probe=probe) as b:
        await b.register(nse("a"))
        probe.times = 9
        await asyncio.sleep(40)
        with pytest.raises(Unavailable):
            await b.register(nse("a"))
        await asyncio.sleep(21)
        assert b.verbs() == ["register", "register", "unregister"]


@virtual_time
async def test_expiry_never_beats_a_refresh_that_waits_before_it() -> None:
    async with bench(Begin(NSE), Expire(10), Slow()) as b:
        await b.register(nse("a"))
        await asyncio.sleep(9.5)  # the timer of 10 s fires while the refresh runs
        await b.register(nse("a"))
        assert b.verbs() == ["register", "register"]


# -- Refresh, Retry ---------------------------------------------------------------------------------------------------


@virtual_time
async def test_what_lives_for_ever_is_not_refreshed() -> None:
    async with bench(Begin(NSE), Refresh()) as b:
        await b.register(nse("a"))
        await asyncio.sleep(600)
        assert b.verbs() == ["register"]


@virtual_time
async def test_refreshes_come_at_two_thirds() -> None:
    class Lives(RegistryElement[NetworkServiceEndpoint]):
        async def register(
            self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
        ) -> NetworkServiceEndpoint:
            assert not entry.HasField("expiration_time"), "the old expiry is not sent again"
            entry.expiration_time.CopyFrom(timestamp(call.runtime.clock.wall() + 60))
            return await next.register(call, entry)

    async with bench(Begin(NSE), Refresh(), Lives()) as b:
        await b.register(nse("a"))
        await asyncio.sleep(40 * 100 + 1)
        assert b.verbs() == ["register"] * 101
        await b.unregister(nse("a"))
        await asyncio.sleep(200)
        assert b.verbs()[-1] == "unregister"


@virtual_time
async def test_a_life_to_ask_for_is_asked_for_each_time() -> None:
    async with bench(Begin(NSE), Refresh(12)) as b:
        await b.register(nse("a"))
        await asyncio.sleep(25)
        wall = b.running.runtime.clock.wall()
        asked = [seconds(passed.message.expiration_time) - wall + 25 for passed in b.probe.seen.calls]
        assert asked == pytest.approx([12, 20, 28, 36])


@virtual_time
async def test_refreshing_goes_on_after_failures() -> None:
    probe: RegistryFailTimes[NetworkServiceEndpoint] = RegistryFailTimes(0, Unavailable("gone"))
    async with bench(Begin(NSE), Refresh(60), probe=probe) as b:
        await b.register(nse("a"))
        probe.times = 1000
        await asyncio.sleep(100)
        assert 50 < len(b.verbs()) < 70
        probe.times = 0
        await asyncio.sleep(45)
        assert b.probe.seen.calls[-1].error is None


@virtual_time
async def test_retry_until_it_works_or_time_is_over() -> None:
    probe: RegistryFailTimes[NetworkServiceEndpoint] = RegistryFailTimes(3, Unavailable("gone"))
    async with bench(Retry(NSE), probe=probe) as b:
        await b.register(nse("a"))
        assert b.verbs() == ["register"] * 4
        probe.times = 1000
        with pytest.raises(Unavailable):
            await b.register(nse("a"), timeout=10)
        assert b.running.runtime.clock.now() < 12


@virtual_time
async def test_retry_gives_each_try_its_own_time_and_message() -> None:
    class Hangs(RegistryElement[NetworkServiceEndpoint]):
        tries = 0

        async def register(
            self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
        ) -> NetworkServiceEndpoint:
            self.tries += 1
            assert entry.url == "tcp://1:1"
            assert "leftover" not in call.onward
            entry.url = call.onward["leftover"] = "changed"
            if self.tries < 3:
                await asyncio.sleep(3600)
            return await next.register(call, entry)

    hangs = Hangs()
    async with bench(Retry(NSE, try_timeout=5), hangs) as b:
        await b.register(nse("a", url="tcp://1:1"))
        assert hangs.tries == 3
        assert 10 < b.running.runtime.clock.now() < 12


@virtual_time
async def test_retry_lets_go_what_cannot_get_better() -> None:
    probe: RegistryFailTimes[NetworkServiceEndpoint] = RegistryFailTimes(9, InvalidRequest("bad"))
    async with bench(Retry(NSE), probe=probe) as b:
        with pytest.raises(InvalidRequest):
            await b.register(nse("a"))
        assert b.verbs() == ["register"]


@virtual_time
async def test_retry_of_unregister_and_find() -> None:
    for verb in ("unregister", "find"):
        probe: RegistryFailTimes[NetworkServiceEndpoint] = RegistryFailTimes(2, Unavailable("gone"), verb=verb)
        async with bench(Retry(NSE), probe=probe, below=(Memory(NSE),)) as b:
            await b.register(nse("a"))
            if verb == "find":
                assert await find_all(b.bound, b.running.call(), Query(nse("a"))) == [nse("a")]
            else:
                await b.unregister(nse("a"))
            assert b.verbs() == ["register", verb, verb, verb]


# -- through registry and manager -------------------------------------------------------------------------------------

MANAGER = "inproc://lifetimes-manager"
REGISTRY = "inproc://lifetimes-registry"


@asynccontextmanager
async def registry(**settings: Any) -> AsyncGenerator[Running, None]:
    async with registry_role(**settings).serving(listen=[listen(REGISTRY)], clock=VirtualClock()) as running:
        yield running


@asynccontextmanager
async def manager() -> AsyncGenerator[Running, None]:
    role = manager_role(Dialer(), REGISTRY, url=MANAGER, labels={"nodeName": "n1"})
    async with role.serving(listen=[listen(MANAGER)], clock=VirtualClock()) as running:
        yield running


@asynccontextmanager
async def registrar(**settings: Any) -> AsyncGenerator[Running, None]:
    async with registrar_role(Dialer(), MANAGER, **settings).serving(clock=VirtualClock()) as running:
        yield running


async def found(running: Running, query: NetworkServiceEndpoint) -> dict[str, str]:
    """URL by name."""
    assert running.bound.nse is not None
    return {one.name: one.url for one in await find_all(running.bound.nse, running.call(timeout=5), Query(query))}


def entries(running: Running) -> list[str]:
    store: Any = next(chain for chain in running.chains if chain.name == "endpoints").find(Memory)
    return sorted(store.store._items)


@virtual_time
async def test_the_whole_way() -> None:
    async with registry() as top, manager() as mid, registrar() as low:
        assert low.bound.nse is not None
        assert low.bound.ns is not None
        await low.bound.ns.register(low.call(timeout=5), NetworkService(name="svc"))
        answer = await low.bound.nse.register(low.call(timeout=5), nse("a", "svc", url="tcp://a:1", app="x"))
        assert answer.url == "tcp://a:1"
        assert dict(answer.network_service_labels["svc"].labels) == {"app": "x", "nodeName": "n1"}
        assert await found(top, nse("a")) == {"a": MANAGER}
        assert await found(mid, nse("", "svc")) == {"a": "tcp://a:1"}
        assert await found(low, nse("", url=MANAGER)) == {"a": "tcp://a:1"}
        await asyncio.sleep(3600)
        assert entries(top) == ["a"]
        await low.bound.nse.unregister(low.call(timeout=5), nse("a"))
        await settled()
        assert entries(top) == []
        assert mid.find(LocalBypass).urls() == {}
        assert len(low.runtime.timers) == 0


@virtual_time
async def test_a_registrar_that_dies_is_forgotten() -> None:
    async with registry() as top, manager() as mid:
        async with registrar() as low:
            assert low.bound.nse is not None
            await low.bound.nse.register(low.call(timeout=5), nse("a", "svc", url="tcp://a:1"))
            low.kill()
        watch = Reader(mid.bound.nse.find(mid.call(), Query(nse("a"), watch=True)))  # type: ignore[union-attr]
        await asyncio.sleep(61)
        await watch.stop()
        assert watch.told == [("a", False), ("a", True)]
        assert entries(top) == []
        assert mid.find(LocalBypass).urls() == {}


@virtual_time
async def test_a_registry_that_comes_back_learns_all_again() -> None:
    async with manager(), registrar() as low:
        assert low.bound.nse is not None
        assert low.bound.ns is not None
        async with registry() as top:
            await low.bound.ns.register(low.call(timeout=5), NetworkService(name="svc", payload="IP"))
            await low.bound.nse.register(low.call(timeout=5), nse("a", "svc", url="tcp://a:1"))
            top.kill()
        await asyncio.sleep(7)
        async with registry() as top:
            await asyncio.sleep(16)
            assert entries(top) == ["a"]
            assert top.bound.ns is not None
            assert len(await find_all(top.bound.ns, top.call(), Query(NetworkService(name="svc")))) == 1
            await asyncio.sleep(600)
            assert entries(top) == ["a"]


@virtual_time
async def test_a_manager_that_comes_back_learns_all_again() -> None:
    async with registry() as top, registrar() as low:
        assert low.bound.nse is not None
        async with manager() as mid:
            await low.bound.nse.register(low.call(timeout=5), nse("a", "svc", url="tcp://a:1"))
            mid.kill()
        await asyncio.sleep(3)
        async with manager() as mid:
            await asyncio.sleep(16)
            assert await found(mid, nse("", "svc")) == {"a": "tcp://a:1"}
            assert entries(top) == ["a"]


@virtual_time
async def test_what_somebody_else_unregisters_comes_back() -> None:
    async with registry() as top, manager(), registrar() as low:
        assert low.bound.nse is not None
        await low.bound.nse.register(low.call(timeout=5), nse("a", "svc", url="tcp://a:1"))
        await settled()
        assert top.bound.nse is not None
        await top.bound.nse.unregister(top.call(), nse("a"))
        assert entries(top) == []
        await asyncio.sleep(1)
        assert entries(top) == ["a"]
        await low.bound.nse.unregister(low.call(timeout=5), nse("a"))
        await asyncio.sleep(10)
        assert entries(top) == []
        assert low.runtime.running == {}


@virtual_time
async def test_unregister_is_ok_whatever_happened_before() -> None:
    async with manager() as mid, registrar() as low:
        assert low.bound.nse is not None
        async with registry() as top:
            await low.bound.nse.register(low.call(timeout=5), nse("a", "svc", url="tcp://a:1"))
            top.kill()
        async with registry():
            await low.bound.nse.unregister(low.call(timeout=5), nse("a"))
            await low.bound.nse.unregister(low.call(timeout=5), nse("a"))
            await low.bound.nse.unregister(low.call(timeout=5), nse("never"))
        assert mid.find(LocalBypass).urls() == {}


@virtual_time
async def test_watching_that_is_forbidden_is_given_up() -> None:
    for error in (PermissionDenied("no"), Unimplemented("no")):
        probe: RegistryFailTimes[NetworkServiceEndpoint] = RegistryFailTimes(99, error, verb="find")
        async with bench(Begin(NSE), Heal(NSE), probe=probe) as b:
            await b.register(nse("a"))
            await asyncio.sleep(60)
            assert b.verbs() == ["register", "find"]
            assert b.running.runtime.running == {}


@virtual_time
async def test_a_stream_that_ends_at_once_does_not_storm() -> None:
    async with bench(Begin(NSE), Heal(NSE)) as b:
        await b.register(nse("a"))
        await asyncio.sleep(600)
        assert len(b.verbs()) < 2 * 600 / 2
        await b.unregister(nse("a"))
        await settled()
        assert b.running.runtime.running == {}


@virtual_time
async def test_other_domains_go_elsewhere() -> None:
    ours: RegistryProbe[NetworkServiceEndpoint] = RegistryProbe()
    elsewhere: RegistryProbe[NetworkServiceEndpoint] = RegistryProbe()
    async with bench(Begin(NSE), ByDomain(elsewhere), probe=ours) as b:
        await b.register(nse("a", "svc"))
        await b.register(nse("b@there", "svc"))
        await b.register(nse("c", "svc", "other@there"))
        await b.unregister(nse("c"))
        await find_all(b.bound, b.running.call(), Query(nse("", "svc@there")))
    assert [passed.verb for passed in ours.seen.calls] == ["register"]
    assert [passed.verb for passed in elsewhere.seen.calls] == ["register", "register", "unregister", "find"]


@virtual_time
async def test_nowhere_to_go() -> None:
    for url, expected in (("", FailedPrecondition), ("tcp://1:1", Unavailable)):
        async with bench(Connect(nowhere, NSE, url)) as b:
            calls: list[Any] = [b.register(nse("a")), b.unregister(nse("a")), found(b.running, nse("a"))]
            for call in calls:
                with pytest.raises(expected):
                    await call


@virtual_time
async def test_a_peer_without_a_registry() -> None:
    async with Role("p").serving(listen=[listen("inproc://lifetimes-none")], clock=VirtualClock()):
        async with bench(Connect(Dialer(), NSE, "inproc://lifetimes-none")) as b:
            with pytest.raises(NsmError) as raised:
                await b.register(nse("a"))
            assert raised.value.status == Unimplemented.default_status
        async with Role("n", ns=Chain("n", Connect(Dialer(), NS, lambda: "inproc://lifetimes-none"))).serving(
            clock=VirtualClock()
        ) as running:
            assert running.bound.ns is not None
            with pytest.raises(NsmError):
                await running.bound.ns.register(running.call(), NetworkService(name="s"))
