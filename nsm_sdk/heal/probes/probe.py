# SPDX-License-Identifier: Apache-2.0
"""What a check of the datapath is.

Does:  `Probe` is the base of all checks; `Target` is what is checked, `Verdict` what came out. A check that cannot be
       made says so (`alive` None): never alive by error, never dead by lack of rights.
Place: given to `Heal`, which asks it per connection.
State: sockets that a probe shares among connections, while it is served.
"""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias, TypeVar

import anyio

from nsm_sdk.api import Connection, Snapshot
from nsm_sdk.core import Runtime, Service, Timer
from nsm_sdk.errors import FailedPrecondition

T = TypeVar("T")


class Inside(Protocol):
    """Port: run a short function in a network namespace, in this process. `nsm_sdk.netlink.run_inside` is one."""

    def __call__(self, namespace: str | int, fn: Callable[[], T], /) -> T: ...


class LinkEvent(Protocol):
    """Something happened to a link; `kind`: up, down, deleted, address-added, address-removed, lost."""

    @property
    def kind(self) -> str: ...
    @property
    def index(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...


class LinkWatch(Protocol):
    """An asynchronous iterator of events."""

    def __aiter__(self) -> AsyncIterator[LinkEvent]: ...
    async def __anext__(self) -> LinkEvent: ...
    async def aclose(self) -> None: ...


class LinkEvents(Protocol):
    """Port: events of one namespace, given by URL or descriptor. `nsm_sdk.netlink.SocketWatch.open` is one."""

    async def __call__(self, namespace: str | int, /) -> LinkWatch: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One connection, as its checks see it."""

    id: str = ""
    namespace: str | int = ""
    """Network namespace of the near end, by URL, name or descriptor; empty: that of this process."""
    mechanism: str = ""
    interface: str = ""
    """Name of the near interface; empty where the mechanism has none."""
    pairs: tuple[tuple[str, str], ...] = ()
    """(source, destination) of the same family, without prefix lengths: all combinations."""
    sources: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    """Next hops of the connection's own routes, and its known neighbours."""
    snapshot: Snapshot | None = None

    @classmethod
    def of(cls, conn: Connection, namespace: str | int = "", snapshot: Snapshot | None = None) -> Target:
        """What there is to check of `conn`, of which `snapshot` may have been taken already."""
        context = conn.context.ip_context
        sources = tuple(map(_plain, context.src_ip_addrs))
        destinations = tuple(map(_plain, context.dst_ip_addrs))
        hops = [route.nextHop for route in context.src_routes if route.nextHop]
        hops += [neighbour.ip for neighbour in context.ip_neighbors if neighbour.ip]
        return cls(
            id=conn.id,
            namespace=namespace,
            mechanism=conn.mechanism.type,
            interface=conn.mechanism.parameters.get("name", ""),
            pairs=tuple((src, dst) for src in sources for dst in destinations if (":" in src) == (":" in dst)),
            sources=sources,
            gateways=tuple(dict.fromkeys(map(_plain, hops))),
            snapshot=snapshot or Snapshot.of(conn),
        )


def _plain(address: str) -> str:
    return address.partition("/")[0]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a check; `alive` None: it could not be made."""

    alive: bool | None
    why: str = ""
    passing: bool = False
    """It may be the work of a request under way, which takes addresses off and puts others on."""


ALIVE = Verdict(True)
Tell: TypeAlias = Callable[[Verdict], None]
Cancel: TypeAlias = Callable[[], None]


class Probe(Service):
    """A way to check datapaths. Override `check`; `follow` where the machine tells of failures by itself."""

    shareable: ClassVar[bool] = True

    def why_not(self, target: Target) -> str:
        """Why this probe cannot check `target`; empty when it can."""
        return ""

    def choose(self, target: Target) -> Probe | None:
        """The probe for this connection; None when it cannot be checked."""
        return None if self.why_not(target) else self

    async def check(self, target: Target, timeout: float) -> Verdict:
        """Whether data flows, within `timeout` seconds; may be cancelled."""
        raise NotImplementedError

    def begin(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel:
        """Start a check in the background; `tell` is called once, unless it is cancelled before."""

        async def run() -> None:
            verdict = Verdict(False, f"no answer within {timeout:g} s")
            try:
                with anyio.move_on_after(timeout):
                    verdict = await self.check(target, timeout)
            except Exception as error:
                verdict = self.failed(error)
            if not scope.cancel_called:
                tell(verdict)

        scope = runtime.spawn(run, f"check {type(self).__name__.lower()}")
        return scope.cancel

    def tick(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel | None:
        """As `begin`, for the regular watch; None where there is nothing to ask because failures make themselves
        heard (`follow`)."""
        return self.begin(runtime, target, timeout, tell)

    def failed(self, error: Exception) -> Verdict:
        """What an error of the check itself says of the datapath: nothing."""
        return Verdict(None, f"{type(error).__name__}: {error}")

    def follow(self, runtime: Runtime, target: Target, tell: Tell) -> Cancel | None:
        """Tell of changes when they happen; None where this probe only checks when asked."""
        return None


def identity(namespace: str | int) -> tuple[int, int]:
    """Which namespace that is now (device, inode); a name may come to mean another. OSError when there is none.

    An open socket keeps its namespace alive, so that its answers prove nothing when the name has gone.
    """
    if namespace == "":
        return (0, 0)
    url = url_of(namespace)
    found = os.fstat(url) if isinstance(url, int) else os.stat(url.removeprefix("file://"))
    return found.st_dev, found.st_ino


def url_of(namespace: str | int) -> str | int:
    """The URL of a namespace given by URL, path or name; of our own for an empty text. Descriptors stay."""
    if isinstance(namespace, int) or namespace.startswith("file://"):
        return namespace
    if not namespace:
        return f"file:///proc/{os.getpid()}/ns/net"
    return f"file://{namespace}" if namespace.startswith("/") else f"file:///run/netns/{namespace}"


def here(namespace: str | int, fn: Callable[[], T], /) -> T:
    """The `Inside` of a program that never leaves its own namespace."""
    if namespace != "":
        raise FailedPrecondition(
            f"namespace {namespace!r} cannot be entered here", hint="give the probe `inside=nsm_sdk.netlink.run_inside`"
        )
    return fn()


def entering(inside: Inside) -> Inside:
    """`inside`, but the own namespace is not entered: the function just runs."""

    def enter(namespace: str | int, fn: Callable[[], T], /) -> T:
        return fn() if namespace == "" else inside(namespace, fn)

    return enter


Report: TypeAlias = Callable[[Verdict, float | None], None]
"""(verdict, when it was last alive)"""

GRID = 0.01
"""Checks start on multiples of this, so that one turn of the loop starts many; seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Liveness:
    """How often and how long; times in seconds. A silent failure is detected within
    `interval` x `failures` + `timeout`."""

    interval: float = 0.2
    timeout: float = 1.0
    """Time budget of one check."""
    failures: int = 1
    """Checks in a row that must fail."""
    overlap: bool = True
    """Start a check while an earlier one is waiting for its answer."""
    jitter: float = 0.2
    """The interval is shortened at random by up to this share: timers are late and repairs take time, yet a failure
    shall on average be healed within half an interval and the time-out."""


class Regular:
    """The watch over one connection; `stop` ends it."""

    def __init__(
        self, runtime: Runtime, probe: Probe, target: Target, liveness: Liveness, dice: random.Random, report: Report
    ) -> None:
        self.probe = probe
        self.target = target
        self.alive_at: float | None = None
        """When it was last known to be alive."""
        self._runtime = runtime
        self._liveness = liveness
        self._dice = dice
        self._report = report
        self._told: bool | str = ""
        self._failures = 0
        self._number = 0
        self._alive_number = 0
        self._checks: dict[int, Cancel] = {}
        self._stopped = False
        self._holds = 0
        self._doubtful = False
        self._timer: Timer | None = None
        self._asked: Cancel | None = None
        self._arm()
        self._unfollow = probe.follow(runtime, target, self._heard)
        if self._unfollow is not None:
            self._start(probe.begin)

    def stop(self) -> None:
        """Check no more, and tell nothing more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._unfollow is not None:
            self._unfollow()
        if self._asked is not None:
            self._asked()
        for cancel in list(self._checks.values()):
            cancel()
        self._checks.clear()

    def renew(self, target: Target) -> None:
        """The connection was confirmed: what was told before counts no more."""
        self.target = target
        self._told = ""
        self._failures = 0
        self._alive_number = self._number
        if self._unfollow is not None:
            # Trouble that went on all the time makes no new event.
            self._start(self.probe.begin)

    def hold(self) -> None:
        """A request is under way, and may change addresses: what may be its work is not believed until `go_on`."""
        self._holds += 1

    def go_on(self) -> None:
        """The end of `hold`: look again where that is needed."""
        self._holds -= 1
        if self._doubtful and not self._holds and not self._stopped:
            self._doubtful = False
            self._start(self.probe.begin)

    def ask(self, tell: Tell) -> None:
        """One check now, whatever the regular ones say; a new question replaces an older one."""
        if self._asked is not None:
            self._asked()
        self._asked = self.probe.begin(self._runtime, self.target, self._liveness.timeout, tell)

    def _arm(self) -> None:
        interval = self._liveness.interval * (1 - self._liveness.jitter * self._dice.random())
        now = self._runtime.clock.now()
        at = now + interval
        if interval > 4 * GRID:
            at = max(at // GRID * GRID, now + GRID)
        self._timer = self._runtime.timers.at(at, self._tick)

    def _tick(self) -> None:
        self._arm()
        if self._checks and not self._liveness.overlap:
            return
        if not self._start(self.probe.tick) and self._timer is not None:
            # It hears failures by itself.
            self._timer.cancel()

    def _start(self, way: Callable[[Runtime, Target, float, Tell], Cancel | None]) -> bool:
        self._number += 1
        number = self._number

        def told(verdict: Verdict) -> None:
            self._checks.pop(number, None)
            self._checked(number, verdict)

        cancel = way(self._runtime, self.target, self._liveness.timeout, told)
        if cancel is not None:
            self._checks[number] = cancel
        return cancel is not None

    def _checked(self, number: int, verdict: Verdict) -> None:
        if self._stopped:
            return
        if verdict.alive:
            self.alive_at = self._runtime.clock.now()
            self._alive_number = max(number, self._alive_number)
            self._failures = 0
            self._tell(verdict)
        elif verdict.alive is None:
            self._tell(verdict)
        elif number > self._alive_number:
            self._failures += 1
            if self._failures >= self._liveness.failures:
                self._tell(verdict)

    def _heard(self, verdict: Verdict) -> None:
        """What comes by itself is certain, unless we cause it."""
        if self._stopped or verdict.alive is not False:
            return
        if verdict.passing and self._holds:
            self._doubtful = True
        else:
            self._tell(verdict)

    def _tell(self, verdict: Verdict) -> None:
        now = "unknown" if verdict.alive is None else verdict.alive
        if now != self._told:
            self._told = now
            self._report(verdict, self.alive_at)
