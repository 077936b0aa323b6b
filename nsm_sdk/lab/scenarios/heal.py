# SPDX-License-Identifier: Apache-2.0
"""Five ways to lose a connection, and what healing makes of each.

Does:  breaks one thing under a running ping, waits for the repair, and says what it cost: pings lost in each direction,
       time to detect, time to repair, moved or not; compares that with what must come out.
Place: `nsm demo heal`, tests.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio

from nsm_sdk.lab.faults import dropping, set_link
from nsm_sdk.lab.scenarios.stage import CHECK_INTERVAL, CHECK_TIMEOUT, Mark, Stage, Watched

OUTAGE = 1.0
"""Seconds that a program stays away before it is started again."""
SLACK = 0.25
"""Seconds that a busy machine may add to what must be detected in time."""
LINK_TIME = 0.05
"""Seconds in which a link that goes down must be noticed."""


@dataclass(slots=True)
class Outcome:
    """What became of one connection. Times in seconds; None: there was nothing to detect or repair."""

    sent: int = 0
    lost: tuple[int, int] = (0, 0)
    """To the endpoint, and from it."""
    silence: float = 0.0
    """From the first ping that was lost to the last."""
    detect: float | None = None
    repair: float | None = None
    moved: bool = False
    why: str = ""
    """What the client says it has healed."""
    wrong: list[str] = field(default_factory=list)
    """What is not as it must be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One thing that breaks. `acts` breaks it, may repair it later, and answers the moment of the break."""

    name: str
    what: str
    acts: Callable[[Stage, Watched, Say], Awaitable[Mark]]
    moves: bool
    """Whether the connection must end at the other endpoint, or must stay where it is."""
    loses: bool
    """Whether pings may be lost."""
    within: float | None = None
    """Seconds in which it must be noticed."""


Say = Callable[[str], None]
"""Told what happens, in a few words."""


async def _manager(stage: Stage, client: Watched, say: Say) -> Mark:
    mark = client.mark()
    await stage.node.manager.kill()
    say("the manager is gone")
    await client.event(mark, "healing")
    await anyio.sleep(OUTAGE)
    await stage.node.manager.start()
    say("the manager is back, and knows nothing")
    await client.event(mark, "healed")
    return mark


async def _process(stage: Stage, client: Watched, say: Say) -> Mark:
    serving = stage.serving(client)
    mark = client.mark()
    await serving.kill()
    say(f"the program of {serving.name} is gone, its network is not")
    await client.event(mark, "healing")
    await anyio.sleep(OUTAGE)
    await serving.restart()
    say(f"{serving.name} is back, and knows nothing")
    await client.event(mark, "healed")
    return mark


async def _link(stage: Stage, client: Watched, say: Say) -> Mark:
    mark = client.mark()
    await set_link(client.pod, client.interface, up=False)
    say("the link is down")
    await client.event(mark, "healed")
    return mark


async def _drop(stage: Stage, client: Watched, say: Say) -> Mark:
    serving = stage.serving(client)
    async with dropping(serving.pod):
        mark = client.mark()
        say(f"{serving.name} answers calls, but no packet")
        await client.event(mark, "healed")
        return mark


async def _gone(stage: Stage, client: Watched, say: Say) -> Mark:
    serving = stage.serving(client)
    mark = client.mark()
    client.back.rest()
    await serving.kill()
    await serving.pod.remove()
    say(f"{serving.name} is gone, and its network with it")
    await client.event(mark, "healed")
    return mark


SILENT = CHECK_INTERVAL + CHECK_TIMEOUT + SLACK

SCENARIOS = (
    Scenario(name="manager", what="manager killed and restarted", acts=_manager, moves=False, loses=False),
    Scenario(
        name="process", what="endpoint's program killed, its network alive", acts=_process, moves=False, loses=False
    ),
    Scenario(name="link", what="link set down", acts=_link, moves=True, loses=True, within=LINK_TIME + SLACK / 5),
    Scenario(name="drop", what="packets dropped, control is fine", acts=_drop, moves=True, loses=True, within=SILENT),
    Scenario(name="gone", what="endpoint gone with its network", acts=_gone, moves=True, loses=True, within=SILENT),
)


async def play(stage: Stage, client: Watched, scenario: Scenario, say: Say) -> Outcome:
    """Play one scenario on a connection that works; answers when it works again, or cannot be made to."""
    before = client.there.sent
    mark = await scenario.acts(stage, client, say)
    await client.flows()
    # Those that are just on their way are not lost.
    until = await client.there.settled()
    await client.back.settled()
    healing, healed = client.since(mark, "healing"), client.since(mark, "healed")
    outcome = Outcome(
        sent=client.there.sent - before,
        lost=(client.there.lost(mark.at, until), client.back.lost(mark.at, until)),
        silence=max(client.there.silence(mark.at, until), client.back.silence(mark.at, until)),
        detect=healing[0].at - mark.at if healing else None,
        repair=healed[-1].at - healing[0].at if healing and healed else None,
        moved=client.endpoint != mark.endpoint,
        why=str(healing[0].line.get("why", "")) if healing else "",
    )
    outcome.wrong = wrong(scenario, outcome)
    say("repaired, " + (f"moved to {client.endpoint}" if outcome.moved else "not moved"))
    return outcome


def wrong(scenario: Scenario, outcome: Outcome) -> list[str]:
    """What is not as it must be, one sentence each."""
    found = []
    if outcome.moved and not scenario.moves:
        found.append("it moved without need")
    if scenario.moves and not outcome.moved:
        found.append("it did not move")
    if any(outcome.lost) and not scenario.loses:
        found.append(f"{sum(outcome.lost)} pings were lost although data could flow all the time")
    if outcome.detect is None:
        found.append("nothing was noticed")
    elif scenario.within is not None and outcome.detect > scenario.within:
        found.append(f"noticed after {outcome.detect * 1000:.0f} ms, not within {scenario.within * 1000:.0f} ms")
    return found
