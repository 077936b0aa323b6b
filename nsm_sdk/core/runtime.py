# SPDX-License-Identifier: Apache-2.0
"""What a role runs on: its clock, its timers, its random numbers, its tasks.

Every background task of a role is spawned on its `Runtime`, has a name and an owner, and ends with the role.
`serve` runs one call for an edge, under a deadline a little earlier than the caller's, so that the caller reads our
error. One timer of the event loop serves all timers of a role.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, TypeVar, final

import anyio
import anyio.lowlevel

from nsm_sdk.core.chain import where
from nsm_sdk.errors import Cancelled, DeadlineExceeded, Internal, NsmError, Unavailable


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Seconds, monotonic; the event loop's own time, so that deadlines and scopes agree."""
        ...

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        ...


class SystemClock:
    """The machine's clock, seen through the running event loop."""

    # Functions of C where they can be: every hop asks ten times for each request.
    now: Callable[[], float]
    wall: Callable[[], float]

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        plain = type(loop).time is asyncio.BaseEventLoop.time
        self.now = time.monotonic if plain else loop.time
        self.wall = time.time


def dice() -> random.Random:
    """Those of the running event loop if it has any, else new ones that nobody can repeat."""
    try:
        found = getattr(asyncio.get_running_loop(), "dice", None)
    except RuntimeError:
        found = None
    return found if isinstance(found, random.Random) else random.Random()


logger = logging.getLogger("nsm_sdk.core")

_SMALL = 64
"""Below this many cells a rebuild is not worth it."""


@final
class Timer:
    """A function that will run once, unless cancelled."""

    __slots__ = ("_fn", "_heap", "at")

    def __init__(self, at: float, fn: Callable[[], object], heap: TimerHeap) -> None:
        self.at = at
        """When, by the event loop's clock."""
        self._fn: Callable[[], object] | None = fn
        self._heap = heap

    @property
    def pending(self) -> bool:
        """Whether it has neither run nor been cancelled."""
        return self._fn is not None

    def cancel(self) -> None:
        """Do not run; harmless afterwards."""
        if self._fn is not None:
            self._fn = None
            self._heap._died()

    def _take(self) -> Callable[[], object] | None:
        fn, self._fn = self._fn, None
        return fn


class TimerHeap:
    """Timers of one role; `len()` counts those that are pending."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._cells: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._dead = 0
        self._handle: asyncio.TimerHandle | None = None
        self._armed = math.inf
        """When the handle fires. It may be too early, after cancelling: that costs less than moving it each time."""
        self._closed = False

    def at(self, when: float, fn: Callable[[], object]) -> Timer:
        """Run `fn` at `when` (event loop time); at once if that is past."""
        timer = Timer(when, fn, self)
        if self._closed:
            timer._take()
            return timer
        self._count += 1
        heapq.heappush(self._cells, (when, self._count, timer))
        if when < self._armed:
            self._arm()
        return timer

    def close(self) -> None:
        """Drop all timers; later ones never run."""
        self._closed = True
        for _, _, timer in self._cells:
            timer._take()
        self._cells.clear()
        self._dead = 0
        self._arm()

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
            self._armed = math.inf
        if self._cells:
            self._armed = self._cells[0][0]
            self._handle = self._loop.call_at(self._armed, self._run)

    def _died(self) -> None:
        self._dead += 1
        if self._dead > _SMALL and self._dead * 2 > len(self._cells):
            self._cells = [cell for cell in self._cells if cell[2].pending]
            heapq.heapify(self._cells)
            self._dead = 0
            self._arm()

    def _run(self) -> None:
        self._handle = None
        self._armed = math.inf
        now = self._loop.time()
        while self._cells and (self._cells[0][0] <= now or not self._cells[0][2].pending):
            _, _, timer = heapq.heappop(self._cells)
            fn = timer._take()
            if fn is None:
                self._dead -= 1
                continue
            try:
                fn()
            except Exception:
                # A timer belongs to one connection; its defect must not stop the others' timers.
                logger.exception("a timer's function failed: %r", fn)
        self._arm()

    def __len__(self) -> int:
        return len(self._cells) - self._dead

    def __repr__(self) -> str:
        return f"<TimerHeap pending={len(self)}>"


logger = logging.getLogger("nsm_sdk.core")
T = TypeVar("T")

EARLY = 0.05
EARLY_SHARE = 0.05
"""Our own deadline ends min(50 ms, 5 %) before the caller's."""


class Runtime:
    """Clock, timers and tasks of one role that is being served."""

    def __init__(self, name: str, clock: Clock | None = None) -> None:
        self.name = name
        self.clock: Clock = clock or SystemClock()
        self.timers = TimerHeap()
        self.dice = dice()
        """Chance, for what is spread out: pauses, jitter."""
        self.running: dict[str, int] = {}
        """How many tasks of each name are running; for leak checks and diagnostics."""
        self.killed = False
        """Set by `Running.kill`: no clean-up, as after a crash."""
        self._closing = False
        self._finishing = 0
        self._calls: dict[anyio.CancelScope, asyncio.Task[None]] = {}
        self._streams: set[anyio.CancelScope] = set()
        self._spawned: dict[anyio.CancelScope, asyncio.Task[None]] = {}
        self._ending = False
        self._over = False
        self._draining = False
        self._at_drain: list[tuple[Callable[[], object], Callable[[], Awaitable[None]] | None]] = []
        self._idle = anyio.Event()
        # What `anyio.CancelScope()` makes, without asking each time which event loop runs.
        self._new_scope = type(anyio.CancelScope())

    def spawn(self, fn: Callable[[], Awaitable[object]], name: str, *, finish: bool = False) -> anyio.CancelScope:
        """Run `fn` in the background until it ends or the answered scope is cancelled; its errors are only logged.

        `finish`: a role that drains waits for it, as for a call.
        """
        self._refuse_late()
        scope = self._new_scope()
        if self._ending:
            scope.cancel()
        self.running[name] = self.running.get(name, 0) + 1
        self._finishing += finish
        self._spawned[scope] = asyncio.get_running_loop().create_task(
            self._background(fn, scope, name, finish), name=f"{self.name}: {name}"
        )
        return scope

    async def _background(
        self, fn: Callable[[], Awaitable[object]], scope: anyio.CancelScope, name: str, finish: bool
    ) -> None:
        try:
            with scope:
                await fn()
        except Exception:
            logger.exception("%s: background task %r failed", self.name, name)
        finally:
            del self._spawned[scope]
            self._left(name)
            self._finishing -= finish
            if finish and self._closing:
                self._idle.set()

    def _left(self, name: str) -> None:
        count = self.running[name] - 1
        if count:
            self.running[name] = count
        else:
            del self.running[name]

    def after(self, delay: float, fn: Callable[[], object]) -> Timer:
        """Run the plain function `fn` after `delay` seconds; it must only post or spawn."""
        return self.timers.at(self.clock.now() + delay, fn)

    async def serve(
        self, run: Callable[[float], Coroutine[Any, Any, T]], remaining: float, what: str, *, stream: bool = False
    ) -> T:
        """Run one call of a peer as a task of this role and wait for it.

        `run` gets the deadline by `clock.now()`; `remaining` is the caller's time in seconds, maybe infinite. When the
        waiting task is cancelled natively (grpc.aio does that), the call's own scope is cancelled instead, and its
        clean-up goes on in this role. A `stream` may last for ever, so a role that drains ends it.
        """
        result, scope = self.launch(run, remaining, what, stream=stream)
        try:
            return await result
        except asyncio.CancelledError:
            scope.cancel()
            if result.done() and not result.cancelled():
                result.exception()
            raise

    def launch(
        self, run: Callable[[float], Coroutine[Any, Any, T]], remaining: float, what: str, *, stream: bool = False
    ) -> tuple[asyncio.Future[T], anyio.CancelScope]:
        """Like `serve`, for an edge that does something else meanwhile: the call's result and its scope."""
        if self._closing:
            raise Unavailable("shutting down", hop=self.name, hint="call again when the hop is back")
        deadline = (
            self.clock.now() + remaining - min(EARLY, remaining * EARLY_SHARE) if remaining < math.inf else math.inf
        )
        self._refuse_late()
        scope = self._new_scope()
        loop = asyncio.get_running_loop()
        result: asyncio.Future[T] = loop.create_future()
        if stream:
            self._streams.add(scope)
        # A scope's own deadline costs as much as all of this.
        self._calls[scope] = loop.create_task(self._serve(run, scope, deadline, result, what))
        return result, scope

    def _refuse_late(self) -> None:
        if self._over:
            raise Unavailable("the hop has ended: it runs no more tasks", hop=self.name)

    async def own_tasks(self) -> None:
        """Own the tasks of this role until cancelled; then they are cancelled and waited for, as a group does.

        `Role.serving` runs it from the start: a loop's bare callback, where most tasks begin, cannot ask a group for
        one, because anyio does not know there which event loop runs. It is cheaper, too: a group's task costs four
        times as much as a plain one.
        """
        try:
            await anyio.sleep_forever()
        finally:
            self._closing = self._ending = True
            with anyio.CancelScope(shield=True):
                while tasks := {**self._calls, **self._spawned}:
                    for scope in tasks:
                        scope.cancel()
                    await asyncio.wait(list(tasks.values()))
                self._over = True

    async def _serve(
        self,
        run: Callable[[float], Coroutine[Any, Any, T]],
        scope: anyio.CancelScope,
        deadline: float,
        result: asyncio.Future[T],
        what: str,
    ) -> None:
        place = ""
        timer = self.timers.at(deadline, scope.cancel) if deadline < math.inf else None
        error: NsmError | None = None
        try:
            with scope:
                try:
                    if scope.cancel_called:
                        # Cut off before it began: not even its first steps, the services may be gone.
                        await anyio.lowlevel.checkpoint()
                    answer = await run(deadline)
                    if not result.done():
                        result.set_result(answer)
                except asyncio.CancelledError as cancelled:
                    place = where(cancelled.__traceback__)
                    raise
            if scope.cancelled_caught:
                error = self._ended(deadline, what, place)
        except Exception as raised:
            error = self.explain(raised)
        finally:
            if timer is not None:
                timer.cancel()
            del self._calls[scope]
            self._streams.discard(scope)
            if self._closing:
                self._idle.set()
            if not result.done():
                result.set_exception(error or Unavailable(f"{what}: the hop was stopped", hop=self.name))

    def _ended(self, deadline: float, what: str, place: str) -> NsmError:
        if self.clock.now() >= deadline:
            return DeadlineExceeded(
                f"{what}: the caller's time ran out",
                hop=self.name,
                element=place,
                hint="allow more time, or look why it is slow",
            )
        if self._closing:
            return Unavailable(f"{what}: shutting down", hop=self.name, hint="call again when the hop is back")
        return Cancelled(f"{what}: cancelled by the caller", hop=self.name, element=place)

    def explain(self, error: Exception) -> NsmError:
        """The error with hop and element filled in, as a peer may read it."""
        if isinstance(error, NsmError):
            error.hop = error.hop or self.name
            if error.hop == self.name:
                error.element = error.element or where(error.__traceback__)
            return error
        place = where(error.__traceback__)
        if isinstance(error, TimeoutError):
            ended = DeadlineExceeded("time ran out", hop=self.name, element=place)
            ended.__cause__ = error
            return ended
        logger.error("%s: unexpected error in %s", self.name, place or "an edge", exc_info=error)
        wrapped = Internal(f"{type(error).__name__}: {error}", hop=self.name, element=place)
        wrapped.__cause__ = error
        return wrapped

    def at_drain(self, fn: Callable[[], object], settled: Callable[[], Awaitable[None]] | None = None) -> None:
        """Run the plain function `fn` when the role begins to shut down.

        New calls are taken until `settled` returns, by which an edge waits for callers that have not heard of it yet.
        """
        self._at_drain.append((fn, settled))

    async def drain(self, seconds: float) -> bool:
        """Wait until callers send no more calls, then until those that run have ended, then end the streams.

        `seconds` is the time for the calls; False when it ran out.
        """
        self._draining = True
        for fn, _ in self._at_drain:
            fn()
        with anyio.move_on_after(seconds):
            for _, settled in self._at_drain:
                if settled is not None:
                    await settled()
            self.refuse()
            while len(self._calls) > len(self._streams) or self._finishing:
                await self._one_ends()
        self.refuse()
        for scope in list(self._streams):
            scope.cancel()
        with anyio.move_on_after(seconds):
            while self._streams:
                await self._one_ends()
        return not self._calls

    def cut_off(self) -> None:
        """Take no more calls, and cancel those that run."""
        self.refuse()
        for scope in list(self._calls):
            scope.cancel()

    def refuse(self) -> None:
        """Take no more calls; those that run go on."""
        self._closing = True

    async def _one_ends(self) -> None:
        self._idle = anyio.Event()
        await self._idle.wait()

    @property
    def accepting(self) -> bool:
        """Whether new calls are taken."""
        return not (self._closing or self._draining)

    @property
    def ending(self) -> bool:
        """Whether its tasks are being cancelled, those that begin now as well."""
        return self._ending

    @property
    def calls(self) -> int:
        """How many calls of peers are running."""
        return len(self._calls)
