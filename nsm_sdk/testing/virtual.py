# SPDX-License-Identifier: Apache-2.0
"""Virtual time: an event loop whose time jumps to the next timer whenever nothing else is left to do.

Does:  `run_virtual` and `virtual_time` run a coroutine on such a loop; a day of timers takes milliseconds and the same
       run gives the same order. Threads, sockets and subprocesses are refused where they are made: time would run away
       while the loop waits for them. A run in which nobody can go on ends with an error that names who waits for what.
Place: tests of timers, deadlines, expiry and healing; one process, with simulated datapath.
State: the loop, for one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import random
import selectors
import sys
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, Unpack, overload

from nsm_sdk.core import Clock, SystemClock
from nsm_sdk.errors import ProgrammingError
from nsm_sdk.testing.leaks import LeakError, lines

_BLIND_TURNS = 50
"""For event loops that do not show their queue."""


async def settled(turns: int = 10_000) -> None:
    """Return when no other task can go on without time passing, I/O or a thread; gives up after `turns`."""
    ready = getattr(asyncio.get_running_loop(), "_ready", None)
    if ready is None:
        turns = min(turns, _BLIND_TURNS)
    for _ in range(turns):
        await asyncio.sleep(0)
        if ready is not None and not ready:
            return


_REFUSED: Mapping[str, str] = {
    "socket.__new__": "a socket",
    "socket.getaddrinfo": "a name look-up",
    "subprocess.Popen": "a subprocess",
    "os.fork": "a subprocess",
    "os.posix_spawn": "a subprocess",
}


class VirtualTimeError(ProgrammingError):
    """Something that virtual time cannot do, or a run that cannot go on."""


def refusal(what: str) -> VirtualTimeError:
    """The error that says why there is no `what` here."""
    return VirtualTimeError(
        f"{what} under virtual time: time would run away while the loop waits for it",
        hint="use inproc:// addresses and simulated parts, or run this test in real time",
    )


_guarded: dict[int, int] = {}
_lock = threading.Lock()
_hooked = False
_start = threading.Thread.start


def guard_this_thread(step: int) -> None:
    """Refuse threads and what `_REFUSED` lists in this thread, while its count is above 0."""
    global _hooked, _start
    me = threading.get_ident()
    with _lock:
        if not _hooked:
            # For good, because a hook cannot be taken away; it costs a look into an empty dictionary.
            sys.addaudithook(_audit)
            _hooked = True
        if not _guarded:
            _start = threading.Thread.start
        count = _guarded.pop(me, 0) + step
        if count:
            _guarded[me] = count
        # Threads have no audit event before Python 3.12.
        threading.Thread.start = _guarded_start if _guarded else _start  # type: ignore[method-assign, assignment]


def _guarded_start(thread: threading.Thread) -> None:
    if threading.get_ident() in _guarded:
        raise refusal(f"a thread ({thread.name})")
    _start(thread)


def _audit(event: str, _: Any) -> None:
    if _guarded and event in _REFUSED and threading.get_ident() in _guarded:
        raise refusal(_REFUSED[event])


P = ParamSpec("P")
T = TypeVar("T")
Ts = TypeVarTuple("Ts")

START_WALL = 1_767_225_600.0
"""2026-01-01 00:00 UTC."""
DAY = 86_400.0
LIMIT = 400 * DAY
"""A run that is still going after so many virtual seconds waits for something that never comes."""
RESOLUTION = 1e-9
TURNS = 1_000_000
"""Turns of the loop at one instant before somebody is said to be spinning."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time; use `run_virtual` rather than this."""

    def __init__(self, *, limit: float = LIMIT, start_wall: float = START_WALL, seed: int = 0) -> None:
        self.virtual_now = 0.0
        self.wall_offset = start_wall
        self.limit = limit
        self.dice = random.Random(seed)
        """Chance, for whoever runs here: the same seed gives the same run."""
        self.on_turn: Callable[[], object] | None = None
        """Called between two turns of the loop."""
        self._idle_selector = _Jump(self)
        super().__init__(self._idle_selector)
        self._owner = threading.get_ident()

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self.virtual_now

    def call_soon_threadsafe(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        if threading.get_ident() != self._owner:
            self._idle_selector.failure = refusal("a call from another thread")
            super().call_soon_threadsafe(lambda: None)
            raise self._idle_selector.failure
        return super().call_soon_threadsafe(callback, *args, context=context)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[Unpack[Ts]], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Refused: a thread would make time run away."""
        raise refusal("a thread (run_in_executor)")

    def run_forever(self) -> None:
        guard_this_thread(+1)
        try:
            super().run_forever()
        finally:
            guard_this_thread(-1)


class _Jump(selectors.BaseSelector):
    """Never waits: moves the loop's time to its next timer instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.failure: VirtualTimeError | None = None
        self._loop = loop
        self._keys: dict[Any, selectors.SelectorKey] = {}
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        if self._loop.on_turn is not None:
            self._loop.on_turn()
            if self._loop._ready:  # type: ignore[attr-defined]
                timeout = 0.0
        scheduled: list[asyncio.TimerHandle] = self._loop._scheduled  # type: ignore[attr-defined]
        if timeout is None or (timeout > 0 and scheduled[0].when() == math.inf):
            raise VirtualTimeError(
                f"deadlock at {self._loop.virtual_now:g} s: nobody can go on and no timer is set;{self._waiting()}",
                hint="see which of them should have been woken, and by whom",
            )
        if timeout <= 0:
            self._turns += 1
            if self._turns > TURNS:
                self._turns = 0
                raise VirtualTimeError(
                    f"{TURNS} turns at {self._loop.virtual_now:g} s without time passing;{self._waiting()}",
                    hint="somebody spins; wait for an event or sleep instead",
                )
            return []
        self._turns = 0
        # Not now + timeout: that may fall short of the timer by a rounding error, and asyncio caps long timeouts.
        self._loop.virtual_now = max(self._loop.virtual_now, scheduled[0].when())
        # asyncio runs what is due before now + resolution; that must not round to now.
        self._loop._clock_resolution = max(RESOLUTION, 2 * math.ulp(self._loop.virtual_now))  # type: ignore[attr-defined]
        if self._loop.virtual_now > self._loop.limit:
            raise VirtualTimeError(
                f"{self._loop.virtual_now:g} s of virtual time have passed, the limit is {self._loop.limit:g} s;"
                f"{self._waiting()}",
                hint="timers keep the run alive while the test waits for what never comes; or raise `limit`",
            )
        return []

    def _waiting(self) -> str:
        return " waiting are: " + "; ".join(lines(asyncio.all_tasks(self._loop)))

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        # The loop's own wake-up pipe comes first.
        if self._keys:
            raise refusal("a file descriptor to wait for")
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[number] = selectors.SelectorKey(fileobj, number, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys


class VirtualClock:
    """The clock of the running virtual loop, wall clock included."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        if not isinstance(loop, VirtualLoop):
            raise VirtualTimeError("no virtual time here", hint="run the test by @virtual_time or run_virtual")
        self._loop = loop

    def now(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._loop.virtual_now

    def wall(self) -> float:
        """Seconds since 1970-01-01 UTC; they begin at `start_wall`."""
        return self._loop.wall_offset + self._loop.virtual_now

    def step_wall(self, seconds: float) -> None:
        """Move the wall clock alone, as a correction of the machine's clock does."""
        self._loop.wall_offset += seconds

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass with everything that happens in them, and what they set off at their end."""
        await asyncio.sleep(seconds)
        await settled()


def current_clock() -> Clock:
    """The running loop's clock: virtual under virtual time, else the machine's."""
    return VirtualClock() if isinstance(asyncio.get_running_loop(), VirtualLoop) else SystemClock()


def run_virtual(
    fn: Callable[..., Coroutine[Any, Any, T]],
    *args: Any,
    start_wall: float = START_WALL,
    limit: float = LIMIT,
    seed: int = 0,
    strict: bool = True,
    **kwargs: Any,
) -> T:
    """Run `fn(*args, **kwargs)` on a virtual loop of its own, and answer what it answers.

    `start_wall`: seconds since the epoch. `limit`: virtual seconds after which the run is given up. `seed`: of all that
    happens at random. With `strict`, tasks that are left at the end raise `LeakError`. Not to be called where a loop is
    running.
    """

    async def main() -> T:
        answer = await fn(*args, **kwargs)
        await settled()
        left = asyncio.all_tasks() - {_current()}
        if left and strict:
            raise LeakError("tasks left behind: " + "; ".join(lines(left)))
        return answer

    if asyncio._get_running_loop() is not None:
        raise VirtualTimeError(
            "run_virtual was called where an event loop is running", hint="call it from a plain function"
        )
    runner = asyncio.Runner(loop_factory=functools.partial(VirtualLoop, limit=limit, start_wall=start_wall, seed=seed))
    try:
        answer = runner.run(main())
    except BaseException:
        # Whoever resists being cancelled now has been named by the first error.
        with contextlib.suppress(VirtualTimeError):
            runner.close()
        raise
    runner.close()
    return answer


def _current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


@overload
def virtual_time(fn: Callable[P, Coroutine[Any, Any, T]], /) -> Callable[P, T]: ...
@overload
def virtual_time(
    *, start_wall: float = START_WALL, limit: float = LIMIT, seed: int = 0, strict: bool = True
) -> Callable[[Callable[P, Coroutine[Any, Any, T]]], Callable[P, T]]: ...


def virtual_time(
    fn: Any = None, /, *, start_wall: float = START_WALL, limit: float = LIMIT, seed: int = 0, strict: bool = True
) -> Any:
    """Make an `async def` test a plain one that runs on a virtual loop of its own.

    pytest fixtures reach it as arguments; asynchronous ones do not (they live on another loop).
    """

    def decorate(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
        @functools.wraps(test)
        def run(*args: P.args, **kwargs: P.kwargs) -> T:
            whole = functools.partial(test, *args, **kwargs)
            return run_virtual(whole, start_wall=start_wall, limit=limit, seed=seed, strict=strict)

        return run

    return decorate if fn is None else decorate(fn)
