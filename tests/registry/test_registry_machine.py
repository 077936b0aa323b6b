# SPDX-License-Identifier: Apache-2.0
"""A registry under random use, against a model that a reader can check.

Does:  hypothesis makes lists of steps (register, register what was answered, ask for a life, unregister, wait, find,
       watch); each runs in virtual time through the whole chain and is compared with a dictionary.
Place: tests of the registry room.
State: none.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from nsm_sdk.api import NetworkServiceEndpoint, seconds
from nsm_sdk.api.path import timestamp
from nsm_sdk.core import NSE, Query, Running, find_all
from nsm_sdk.registry import Memory, endpoint_matches
from nsm_sdk.registry.expire import SHORTEST, unregister_after
from nsm_sdk.testing import VirtualClock, run_virtual, settled
from tests.registry.chains import registry_role
from tests.registry.test_store import QUERIES, Reader, nse

LIFE = 60.0
NAMES = st.sampled_from("abc")
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("register"),
            NAMES,
            st.lists(st.sampled_from(("one", "two")), max_size=2),
            st.sampled_from((None, -10.0, 5.0, 30.0, 600.0)),
            st.sampled_from((5.0, 15.0, 90.0, float("inf"))),
        ),
        st.tuples(st.just("echo"), NAMES, st.sampled_from((5.0, float("inf")))),
        st.tuples(st.just("unregister"), NAMES),
        st.tuples(st.just("wait"), st.sampled_from((0.5, 7.0, 20.0, 50.0))),
        st.tuples(st.just("watch"), st.integers(0, len(QUERIES) - 1)),
    ),
    max_size=25,
)


@dataclass
class Model:
    """What should be there, and until when."""

    entries: dict[str, NetworkServiceEndpoint] = field(default_factory=dict)
    ends: dict[str, float] = field(default_factory=dict)
    answers: dict[str, NetworkServiceEndpoint] = field(default_factory=dict)

    def registered(self, answer: NetworkServiceEndpoint, wall: float, timeout: float) -> None:
        self.entries[answer.name] = self.answers[answer.name] = NSE.copy(answer)
        life = seconds(answer.expiration_time) - wall
        self.ends[answer.name] = wall + unregister_after(life, timeout)

    def gone(self, name: str) -> None:
        self.entries.pop(name, None)
        self.ends.pop(name, None)

    def pass_time(self, wall: float) -> None:
        for name in [name for name, end in self.ends.items() if end <= wall]:
            self.gone(name)

    def near(self, wall: float) -> bool:
        """Whether something ends about now, so that either answer is right."""
        return any(abs(end - wall) < 1e-3 for end in self.ends.values())


async def step(running: Running, model: Model, watches: list[tuple[int, Reader]], what: tuple[Any, ...]) -> None:
    nse_registry: Any = running.bound.nse
    wall = running.runtime.clock.wall
    match what:
        case ("register", name, services, asked, timeout):
            entry = nse(name, *services)
            # Asking for exactly what was answered last is an echo, not a wish.
            await asyncio.sleep(0.01)
            model.pass_time(wall())
            if asked is not None:
                entry.expiration_time.CopyFrom(timestamp(wall() + asked))
            answer = await nse_registry.register(running.call(timeout=timeout), entry)
            life = seconds(answer.expiration_time) - wall()
            expected = LIFE if asked is None or asked <= 0 else min(asked, LIFE)
            assert abs(life - expected) < 1e-3
            model.registered(answer, wall(), timeout)
        case ("echo", name, timeout):
            if name in model.answers:
                known = name in model.entries
                answer = await nse_registry.register(running.call(timeout=timeout), NSE.copy(model.answers[name]))
                life = seconds(answer.expiration_time) - wall()
                # One that was forgotten meanwhile cannot be told from one that asks for just that.
                assert abs(life - LIFE) < 1e-3 if known else SHORTEST - 1 <= life <= LIFE + 1e-3
                model.registered(answer, wall(), timeout)
        case ("unregister", name):
            await nse_registry.unregister(running.call(), nse(name))
            model.gone(name)
        case ("wait", duration):
            await asyncio.sleep(duration)
            await settled()
            model.pass_time(wall())
        case ("watch", at):
            if len(watches) < 4:
                watches.append((at, Reader(nse_registry.find(running.call(), Query(QUERIES[at], watch=True)))))
    await settled()


def held(reader: Reader) -> dict[str, NetworkServiceEndpoint]:
    """What a reader knows after all that it was told."""
    known: dict[str, NetworkServiceEndpoint] = {}
    for (name, deleted), entry in zip(reader.told, reader.entries, strict=True):
        if deleted:
            assert name in known, "it was told that something is gone which it never saw"
            del known[name]
        else:
            known[name] = entry
    return known


@settings(max_examples=80, deadline=None)
@given(STEPS)
def test_a_registry_against_its_model(steps: list[tuple[Any, ...]]) -> None:
    async def run() -> None:
        model = Model()
        watches: list[tuple[int, Reader]] = []
        async with registry_role(life=LIFE).serving(clock=VirtualClock()) as running:
            for what in steps:
                await step(running, model, watches, what)
                if model.near(running.runtime.clock.wall()):
                    await asyncio.sleep(0.01)
                    model.pass_time(running.runtime.clock.wall())
                assert running.bound.nse is not None
                for query in QUERIES:
                    there = await find_all(running.bound.nse, running.call(), Query(query))
                    expected = {name for name, entry in model.entries.items() if endpoint_matches(query, entry)}
                    assert {entry.name for entry in there} == expected, (what, query)
                for at, reader in watches:
                    expected = {n for n, entry in model.entries.items() if endpoint_matches(QUERIES[at], entry)}
                    assert set(held(reader)) == expected, (what, QUERIES[at])
            await asyncio.sleep(LIFE + 1)
            await settled()
            store: Any = next(chain for chain in running.chains if chain.name == "endpoints").find(Memory)
            assert len(store.store) == 0, "everything ends"
            assert len(running.runtime.timers) == 0
            for _, reader in watches:
                assert held(reader) == {}
                await reader.stop()
            assert running.runtime.running == {}

    run_virtual(run)
