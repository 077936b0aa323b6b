# SPDX-License-Identifier: Apache-2.0
"""One scenario, every way to run a mesh.

Does:  `run` runs a scenario in a mode: in virtual time where the mode allows it. `every_mode` are the parameters of a
       test over all of them; those that this machine cannot do are skipped with the reason.
Place: tests of a whole mesh.
State: what the machine can do, asked once.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from nsm_sdk import lab
from nsm_sdk.lab import Cluster, Counts, Mode
from nsm_sdk.testing import run_virtual, settled
from nsm_sdk.testing.leaks import lines
from tests.run import MARK

MODES = {
    name: getattr(lab, name.upper())
    for name in (
        "inproc",
        "memory",
        "unix",
        "tcp",
        "namespaces",
        "programs_simulated",
        "programs",
        "programs_tcp",
    )
}

PASSING = ("descriptors", "calls", "watchers", "tasks (candidates)", "timers")
"""What a mesh has more of after a crash, or once it has been used, without being any connection's."""


@functools.cache
def why_not(mode: Mode) -> str:
    """Why this machine cannot do the mode; empty where it can."""
    return mode.why_not()


def run(mode: Mode, scenario: Callable[..., Coroutine[Any, Any, None]], **options: Any) -> None:
    """Run `scenario(cluster)` on a cluster of its own, and see that no task is left."""
    if mode.ground is lab.Ground.KERNEL and why_not(mode):
        pytest.skip(why_not(mode))

    async def main() -> None:
        async with Cluster(mode, name=f"t{MARK}", **options) as cluster:
            await scenario(cluster)
        await settled()
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        assert not left, lines(left)

    if mode.virtual:
        run_virtual(main)
    else:
        asyncio.run(main())


def every_mode(*names: str) -> pytest.MarkDecorator:
    """Parameters `mode`: the named ones, or all."""
    chosen = []
    for name in names or MODES:
        mode = MODES[name]
        marks = [pytest.mark.netns] if mode.ground is lab.Ground.KERNEL else []
        chosen.append(pytest.param(mode, id=name, marks=marks))
    return pytest.mark.parametrize("mode", chosen)


async def nothing_left(cluster: Cluster, before: Counts, *apart: str, patience: float = 5.0) -> None:
    """See that the mesh holds nothing more than `before`; what goes by itself gets `patience` seconds."""
    for _ in range(50):
        left = (await cluster.counts()).new_since(before, apart=apart or PASSING)
        if not left:
            return
        await asyncio.sleep(patience / 50)
    raise AssertionError("left behind: " + "; ".join(left))


async def steady(cluster: Cluster) -> Counts:
    """The counts, once nothing changes by itself: streams that monitor a new connection open in the background."""
    counts = await cluster.counts()
    for _ in range(100):
        await settled()
        await asyncio.sleep(0.05)
        last, counts = counts, await cluster.counts()
        if counts == last:
            return counts
    raise AssertionError(f"the mesh does not come to rest: {counts.new_since(last)}")


URL = "kernel://icmp-responder/nsm-1"
