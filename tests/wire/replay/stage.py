# SPDX-License-Identifier: Apache-2.0
"""A recording, played with one hop of ours in the place of a recorded one.

Does:  goes through the events of a recording in order. What recorded hops asked of that hop is asked of ours, over real
       sockets, with the recorded metadata; what that hop asked of others is awaited, compared and answered as recorded.
Place: tests of whole hops.
State: peers, clients, streams that are open, and the differences found.
"""

from __future__ import annotations

import asyncio
import operator
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from nsm_sdk.api import MONITOR_CONNECTIONS, ConnectionEvent, EventType, Method, State
from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY, subject
from nsm_sdk.core import Role, Running
from nsm_sdk.transport import listen
from tests.wire.deviations import DEVIATIONS
from tests.wire.replay.compare import Translation, differences, path_of, plain, subject_of
from tests.wire.replay.marks import mark, unmarked
from tests.wire.replay.peers import Peer
from tests.wire.replay.script import TRACING, Exchange, Script

NOTHING = "nothing yet"
"""What an empty first event says."""
PATIENCE = 5.0
"""Seconds to wait for what must happen."""
Action = Callable[[], Awaitable[Any]]


class ShiftedClock:
    """The time of the recording."""

    def __init__(self, began: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._shift = began - self._loop.time()

    def now(self) -> float:
        return self._loop.time()

    def wall(self) -> float:
        return self._loop.time() + self._shift


class Stage:
    """Recording `name` with our hop in the place of `hop`."""

    def __init__(
        self, name: str, hop: str, *, ignore: Iterable[str] = (), today: bool = False, newer: bool = False
    ) -> None:
        """`ignore`: fields that do not count, in JSON's spelling. `today`: the recording is moved to the present, for
        hops whose clock is the machine's. `newer`: recorded hops send fields that nobody knows, everywhere."""
        self.script = Script(name)
        self.hop = hop
        self.translation = Translation(time.time() - self.script.began if today else 0.0)
        self.clock = ShiftedClock(self.script.began)
        self.peers = {one: Peer(self, one) for one in self.script.servers_of(hop)}
        self.url = ""
        self._ignore = frozenset(ignore)
        self._newer = newer
        self.patience = PATIENCE
        self.loose = False
        """Peers find what only contains the names that are looked for, as registries once did."""
        self.lost: dict[tuple[str, int], set[str]] = {}
        """Where unknown fields are missing in what our hop says, by side and call."""
        self._problems: dict[tuple[str, int], list[str]] = {}
        self._judged: set[tuple[str, int]] = set()
        self._asked = {one.number: asyncio.Event() for one in self.script.calls_of(hop)}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._tasks: dict[int, asyncio.Task[Any]] = {}
        self._heard: dict[int, list[Any]] = {}
        self._news = asyncio.Event()
        self._at = 0
        self.begun = asyncio.Event()
        """Set once the recording is being played; a program may call before, as soon as it runs."""
        self._known = {one: list(self.script.registered(one)) for one in self.peers}

    # -- setting up -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def set(self) -> AsyncIterator[Stage]:
        """Peers listen."""
        async with AsyncExitStack() as stack:
            for name, peer in self.peers.items():
                await peer.start()
                stack.push_async_callback(peer.stop)
                if name in self.script.addresses:
                    self.translation.learn(self.script.addresses[name], peer.url)
            yield self

    @asynccontextmanager
    async def playing(self, role: Role) -> AsyncIterator[Running]:
        """Our hop, listening."""
        serving = role.serving(listen=[listen("tcp://127.0.0.1:0")], clock=self.clock)
        async with serving as running, self.playing_at(running.urls[0]):
            yield running

    @asynccontextmanager
    async def playing_at(self, url: str) -> AsyncIterator[None]:
        """Our hop, which listens at `url`; empty where it listens nowhere."""
        self.url = url
        if self.hop in self.script.addresses:
            self.translation.learn(self.script.addresses[self.hop], url)
        try:
            yield
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            for channel in self._channels.values():
                await channel.close()

    def sent(self, message: Any) -> bytes:
        """What a recorded hop sends."""
        return bytes((mark(message) if self._newer else message).SerializeToString())

    def _look(self, side: str, exchange: Exchange, message: Any) -> None:
        if self._newer:
            self.lost.setdefault((side, exchange.number), set()).update(unmarked(message))

    @property
    def manager(self) -> Peer:
        """The manager that our hop calls; the first, if it calls several."""
        return next(peer for name, peer in self.peers.items() if name.rpartition("/")[2].startswith("nsmgr"))

    @property
    def registry(self) -> Peer:
        """The registry that our hop calls."""
        return next(peer for name, peer in self.peers.items() if name.rpartition("/")[2] == "registry")

    def skip(self, until: int) -> None:
        """Leave out what is recorded before event `until`, as far as it has not come."""
        self._at = until

    def due(self, exchange: Exchange) -> bool:
        """Whether a recorded call of our hop belongs to what is going on."""
        running = (
            self.script.exchanges[number]
            for number, task in self._tasks.items()
            if not task.done() and not self.script.exchanges[number].stream
        )
        return exchange.first <= max([self._at, *(one.last for one in running)])

    def made_up(self, recorded: str) -> bool:
        """Whether an id in the recording is one that a hop has generated."""
        return recorded in self.script.generated

    # -- playing ----------------------------------------------------------------------------------------------------

    async def play(
        self,
        *,
        actions: Mapping[int, Action] | None = None,
        hooks: Mapping[int, Action] | None = None,
        until: int | None = None,
    ) -> None:
        """Go through the recording. `actions`: what our hop's application does, by the number of the recorded call that
        came of it; `hooks`: what else happens, by the number of an event."""
        actions, hooks = actions or {}, hooks or {}
        self.begun.set()
        firsts: dict[int, list[Exchange]] = {}
        for one in self.script.exchanges.values():
            firsts.setdefault(self._start(one), []).append(one)
        lasts: dict[int, list[Exchange]] = {}
        says: dict[int, tuple[Exchange, Any]] = {}
        for one in self.script.exchanges.values():
            lasts.setdefault(one.last, []).append(one)
            says.update({number: (one, message) for number, message in one.answers})
        for number in range(1, (until or self.script.last) + 1):
            self._at = number
            if number in hooks:
                await hooks[number]()
            for begun in firsts.get(number, ()):
                self._begin(begun, actions)
            if number in says:
                await self._said(*says[number], number)
            for ended in lasts.get(number, ()):
                await self._end(ended, actions)
            for name, changes in self._known.items():
                for at, entry, gone in changes:
                    if at == number:
                        self.peers[name].learn(entry, gone)

    def _start(self, exchange: Exchange) -> int:
        """When a call is made here: not before the recorded hop passed it on, because ours may be quicker."""
        if exchange.server != self.hop or exchange.stream or exchange.request is None:
            return exchange.first
        what = subject_of(exchange.request)
        passed = (
            one.first
            for one in self.script.calls_of(self.hop)
            if one.method is exchange.method and subject_of(one.request) == what
        )
        return min((at for at in passed if exchange.first < at < exchange.last), default=exchange.first)

    def _begin(self, exchange: Exchange, actions: Mapping[int, Action]) -> None:
        if exchange.number in actions:
            self._tasks[exchange.number] = asyncio.ensure_future(actions[exchange.number]())
        elif exchange.server == self.hop and exchange.request is not None:
            run = self._stream(exchange) if exchange.stream else self._call(exchange)
            self._tasks[exchange.number] = asyncio.create_task(run)

    async def _said(self, exchange: Exchange, message: Any, number: int) -> None:
        """A recorded answer on a stream: a peer says it, or ours has to have the same effect."""
        if exchange.client == self.hop and exchange.method is MONITOR_CONNECTIONS:
            self.peers[exchange.server].happened(message)
        elif exchange.server == self.hop and exchange.stream:
            await self._until_heard(exchange, number)

    async def _end(self, exchange: Exchange, actions: Mapping[int, Action]) -> None:
        deviates = (self.script.name, "requests", str(exchange.number)) in DEVIATIONS
        if exchange.client == self.hop and not exchange.stream and not deviates:
            await self._within(self._asked[exchange.number].wait(), exchange, "requests", "it was never asked")
        if exchange.number in actions:
            await self._within(self._tasks[exchange.number], exchange, "requests", "it did not end")
        elif exchange.server == self.hop and exchange.request is not None:
            task = self._tasks[exchange.number]
            if exchange.stream and exchange.status is None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            else:
                await self._within(task, exchange, "answers", "it was not answered")

    async def _within(self, what: Awaitable[Any], exchange: Exchange, side: str, otherwise: str) -> None:
        try:
            async with asyncio.timeout(self.patience):
                await what
        except TimeoutError:
            self.problem(exchange.number, otherwise, side)

    # -- what recorded hops ask of ours -----------------------------------------------------------------------------

    def _channel(self, client: str) -> grpc.aio.Channel:
        found = self._channels.get(client)
        if found is None:
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
            found = grpc.aio.insecure_channel(self.url.removeprefix("tcp://"), options=options)
            self._channels[client] = found
        return found

    async def _call(self, exchange: Exchange) -> None:
        method = exchange.method
        stub: Any = self._channel(exchange.client).unary_unary(method.path)
        asked = self.sent(self.translation.here(exchange.request))
        rpc: Any = stub(asked, metadata=self.translation.metadata(exchange.metadata), timeout=exchange.timeout)
        try:
            answer = method.response.FromString(await rpc)
        except grpc.aio.AioRpcError as error:
            self._refused(exchange, error.code().value[0], error.details() or "")
            return
        headers = {key: value for key, value in await rpc.initial_metadata() if isinstance(value, str)}
        self._judged.add(("answers", exchange.number))
        if exchange.status != 0:
            self.problem(exchange.number, f"recorded status {exchange.status} ({exchange.text}), ours OK", "answers")
            return
        self._look("answers", exchange, answer)
        recorded = exchange.answers[0][1]
        self.translation.learn_ids(recorded, answer, self.hop)
        told = differences(plain(self.translation.here(recorded), self._ignore), plain(answer, self._ignore))
        told += differences(path_of(exchange.headers.get("path")), path_of(headers.get("path")), "path header")
        for one in told:
            self.problem(exchange.number, one, "answers")

    def _refused(self, exchange: Exchange, code: int, text: str) -> None:
        self._judged.add(("answers", exchange.number))
        # A caller whose time is over writes its own status; the recorded one only has the reset.
        recorded = 4 if exchange.status is None else exchange.status
        if code != recorded:
            self.problem(
                exchange.number, f"recorded status {recorded} {exchange.text!r}, ours {code} {text!r}", "answers"
            )

    async def _stream(self, exchange: Exchange) -> None:
        method = exchange.method
        stub: Any = self._channel(exchange.client).unary_stream(method.path)
        asked = self.sent(self.translation.here(exchange.request))
        rpc: Any = stub(asked, metadata=self.translation.metadata(exchange.metadata))
        heard = self._heard.setdefault(exchange.number, [])
        self._judged.add(("answers", exchange.number))
        try:
            async for raw in rpc:
                heard.append(method.response.FromString(raw))
                self._look("answers", exchange, heard[-1])
                self._news.set()
        except grpc.aio.AioRpcError as error:
            if error.code().value[0] != exchange.status:
                self._refused(exchange, error.code().value[0], error.details() or "")
        finally:
            rpc.cancel()

    async def _until_heard(self, exchange: Exchange, number: int) -> None:
        """Wait until ours has said all that the recorded one had said by event `number`."""
        recorded = [self.translation.here(message) for at, message in exchange.answers if at <= number]
        if exchange.status == 0:
            # A find that ends: its results come in any order, so the last is awaited.
            if number != exchange.answers[-1][0]:
                return
            recorded.sort(key=str)
        theirs = effect(recorded, self._ignore)
        accepted = [theirs]
        fits: Callable[[list[Any], list[Any]], bool] = operator.eq
        if exchange.method is MONITOR_CONNECTIONS:
            fits = covers
            # What is said at the start of a stream, and what as a change, depends on how quick everybody is.
            ahead = effect(self.translation.here(message) for _, message in exchange.answers)
            accepted += [ahead, ahead[1:] if len(ahead) > 1 and ahead[0] != NOTHING else ahead]

        def heard() -> list[Any]:
            found = self._heard.get(exchange.number, [])
            return effect(sorted(found, key=str) if exchange.status == 0 else found, self._ignore)

        listed = (self.script.name, "answers", str(exchange.number)) in DEVIATIONS
        try:
            async with asyncio.timeout(0.3 if listed else self.patience):
                while not any(fits(heard(), one) for one in accepted):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            self.problem(exchange.number, f"at event {number}: recorded {theirs}, ours {heard()}", "answers")

    # -- what our hop asks of others --------------------------------------------------------------------------------

    def asked(self, exchange: Exchange, message: Any, metadata: dict[str, str]) -> None:
        """Our hop has made a recorded call: is it the same?"""
        self._judged.add(("requests", exchange.number))
        self._look("requests", exchange, message)
        recorded = self.translation.here(exchange.request)
        told = differences(plain(recorded, self._ignore), plain(message, self._ignore))
        keys = set(exchange.metadata) - {TRACING}
        if keys != set(metadata):
            told.append(f"metadata: recorded {sorted(keys)}, ours {sorted(metadata)}")
        told += differences(path_of(exchange.metadata.get("path")), path_of(metadata.get("path")), "path")
        told += differences(
            subject(exchange.metadata.get(TOKEN_KEY, "")), subject(metadata.get(TOKEN_KEY, "")), TOKEN_KEY
        )
        if (EXPIRES_KEY in metadata) != (TOKEN_KEY in metadata):
            told.append("a token goes with its expiry")
        for one in told:
            self.problem(exchange.number, one, "requests")

    def opened(self, method: Method[Any, Any], metadata: dict[str, str]) -> None:
        """Our hop has opened a stream; which, is compared by what comes of it, but who asks must be said."""
        if set(metadata) != {TOKEN_KEY, EXPIRES_KEY} or not subject(metadata[TOKEN_KEY]).endswith(f"/{self.hop}"):
            self.problem(0, f"{method.path} was opened with the metadata {sorted(metadata)}")

    def answered(self, exchange: Exchange) -> None:
        """A recorded call of our hop has come and is being answered."""
        self._asked[exchange.number].set()

    # -- the outcome ------------------------------------------------------------------------------------------------

    def problem(self, number: int, what: str, side: str = "requests") -> None:
        """Note a difference in a call: in what our hop asks (`requests`), or in what it answers (`answers`)."""
        self._judged.add((side, number))
        self._problems.setdefault((side, number), []).append(what)

    def found(self) -> list[str]:
        """All differences, with the call in which each was found."""
        return [
            f"{side}: {self.script.exchanges.get(number)}: {one}"
            for (side, number), told in sorted(self._problems.items())
            for one in told
        ]

    def check(self) -> None:
        """All is as recorded, but for the calls in the list of deviations, which must differ."""
        wrong: list[str] = []
        for number, came in self._asked.items():
            if not came.is_set() and (self.script.name, "requests", str(number)) in DEVIATIONS:
                self.problem(number, "it was never asked")
        assert self._judged, "nothing was compared"
        for side, number in sorted(self._judged):
            found = self._problems.get((side, number), [])
            exchange = self.script.exchanges.get(number)
            listed = (self.script.name, side, str(number)) in DEVIATIONS
            if found and not listed:
                wrong.append(f"{side}: {exchange}: " + "; ".join(found))
            elif listed and not found:
                wrong.append(f"{side}: {exchange}: listed as a deviation, but as recorded")
        assert not wrong, "\n".join(wrong)


def effect(messages: Iterable[Any], ignore: Iterable[str] = ()) -> list[Any]:
    """What a reader of a stream knows after its messages: each change once, in order.

    In finds each entry with its address, in monitor streams each connection's state.
    """
    told: list[Any] = []
    last: dict[str, Any] = {}
    for message in messages:
        if isinstance(message, ConnectionEvent):
            if not message.connections and not told:
                told.append(NOTHING)
            for conn in message.connections.values():
                gone = message.type == EventType.DELETE
                now = "gone" if gone else (State(conn.state).name, len(conn.path.path_segments), conn.path.index)
                if last.get(conn.id) != now:
                    told.append((conn.id, now))
                    last[conn.id] = now
            continue
        entry = plain(message, ignore)
        entry.pop("expirationTime", None)
        told.append(_untimed(entry))
    return told


def covers(ours: list[Any], theirs: list[Any]) -> bool:
    """Whether our reader knows in the end what theirs did, and has seen all of it on the way, maybe more."""
    rest = iter(ours)
    return ours[-1:] == theirs[-1:] and all(one in rest for one in theirs)


def _untimed(value: Any) -> Any:
    if isinstance(value, dict):
        times = ("expirationTime", "initialRegistrationTime")
        return {key: _untimed(inner) for key, inner in value.items() if key not in times}
    return [_untimed(inner) for inner in value] if isinstance(value, list) else value
