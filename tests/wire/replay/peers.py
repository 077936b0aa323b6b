# SPDX-License-Identifier: Apache-2.0
"""The neighbours of our hop, who say what the recorded ones said.

Does:  a `Peer` is a bare gRPC server. Requests, closes and registrations must be those of the recording and get the
       recorded answers; finds and monitor streams are answered by what the recorded hop knew at that point.
Place: on a stage, one for each hop that ours calls.
State: what has been asked, what is registered, connections, open streams.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from nsm_sdk.api import (
    METHODS,
    Connection,
    ConnectionEvent,
    EventType,
    Method,
    NetworkServiceEndpointResponse,
    NetworkServiceResponse,
    Selector,
    matches,
)
from nsm_sdk.registry.matching import endpoint_matches, service_matches
from tests.wire.replay.compare import connection_of, subject_of
from tests.wire.replay.script import Exchange, is_service

if TYPE_CHECKING:
    from tests.wire.replay.stage import Stage

CODES = {code.value[0]: code for code in grpc.StatusCode}
_OWN = frozenset({"user-agent", "grpc-accept-encoding", "accept-encoding", "te", "content-type"})


class Peer:
    """One recorded neighbour. `async with` listens, on a port of its own."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.name = name
        self.url = ""
        self._server: grpc.aio.Server | None = None
        self._waiting = [one for one in stage.script.calls_of(stage.hop) if one.server == name and not one.stream]
        self._entries: dict[tuple[bool, str], Any] = {}
        self._connections: dict[str, Connection] = {}
        self._finds: dict[asyncio.Queue[Any], Any] = {}
        self._watches: dict[asyncio.Queue[ConnectionEvent], Selector] = {}

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((_Handlers(self),))
        self.url = f"tcp://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        await self._server.start()

    async def stop(self) -> None:
        """Die: connections break, nobody listens any more."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(None)

    # -- requests, closes and registrations -------------------------------------------------------------------------

    async def unary(self, method: Method[Any, Any], raw: bytes, context: Any) -> bytes:
        message = method.request.FromString(raw)
        await self.stage.begun.wait()
        exchange = self._expected(method, message)
        if exchange is None:
            return await self._extra(method, message, context)
        metadata = _metadata(context)
        self.stage.translation.learn_ids(exchange.request, message, self.stage.hop)
        self.stage.asked(exchange, message, metadata)
        self.stage.answered(exchange)
        if exchange.status is None:
            await asyncio.Event().wait()  # the recorded one never answered, either
        if exchange.status:
            await context.abort(CODES[exchange.status], exchange.text)
        if "path" in exchange.headers:
            await context.send_initial_metadata(self.stage.translation.metadata({"path": exchange.headers["path"]}))
        answer = self.stage.translation.here(exchange.answers[0][1])
        if method.name == "Close":
            self._forget(message)
        elif method.name == "Request":
            self._connected(answer)
        return self.stage.sent(answer)

    def _expected(self, method: Method[Any, Any], message: Any) -> Exchange | None:
        """The next recorded call of that kind for that connection or entry."""
        alike = [one for one in self._waiting if one.method is method and self.stage.due(one)]
        same = [one for one in alike if self._same(subject_of(one.request), subject_of(message))]
        if not same and method.name == "Request" and subject_of(message)[0] == self.stage.hop:
            # Our hop has made up the id; the order tells which it is.
            same = [one for one in alike if self.stage.made_up(subject_of(one.request)[-1])]
        if not same:
            return None
        self._waiting.remove(same[0])
        return same[0]

    def _same(self, recorded: tuple[str, ...], here: tuple[str, ...]) -> bool:
        return tuple(map(self.stage.translation.text, recorded)) == here

    async def _extra(self, method: Method[Any, Any], message: Any, context: Any) -> bytes:
        """A call that is not recorded. To close what failed is our way of cleaning up; all else is a difference."""
        if method.name == "Close":
            self._forget(message)
            return b""
        self.stage.problem(0, f"{self.name} was asked {method.path} for {subject_of(message)}, which is not recorded")
        await context.abort(grpc.StatusCode.INTERNAL, "not recorded")
        raise AssertionError

    # -- finds ------------------------------------------------------------------------------------------------------

    def learn(self, entry: Any, gone: bool) -> None:
        """The recorded hop has come to know an entry, or lost it."""
        entry = self.stage.translation.here(entry)
        key = (is_service(entry), entry.name)
        if gone:
            entry = self._entries.pop(key, entry)
        else:
            self._entries[key] = entry
        for queue, query in self._finds.items():
            if self._matches(query, entry):
                queue.put_nowait(_response(entry, gone))

    async def find(self, query: Any) -> AsyncGenerator[Any, None]:
        queue: asyncio.Queue[Any] = asyncio.Queue()
        self._finds[queue] = query
        try:
            for entry in list(self._entries.values()):
                if self._matches(query, entry):
                    yield _response(entry, False)
            while query.watch:
                yield await queue.get()
        finally:
            del self._finds[queue]

    def _matches(self, query: Any, entry: Any) -> bool:
        if self.stage.loose and not is_service(entry) and hasattr(query, "network_service_endpoint"):
            wanted = query.network_service_endpoint
            return (
                wanted.name in entry.name
                and wanted.url in entry.url
                and all(
                    any(one in other for other in entry.network_service_names) for one in wanted.network_service_names
                )
            )
        if self.stage.loose and is_service(entry) and hasattr(query, "network_service"):
            return bool(query.network_service.name in entry.name)
        return _found(query, entry)

    # -- monitor streams --------------------------------------------------------------------------------------------

    def happened(self, event: ConnectionEvent) -> None:
        """The recorded hop has said something of its connections to ours."""
        for conn in self.stage.translation.here(event).connections.values():
            known = self._connections.get(conn.id)
            if event.type == EventType.DELETE:
                self._connections.pop(conn.id, None)
            else:
                self._connections[conn.id] = conn
                if conn == known and event.type == EventType.INITIAL_STATE_TRANSFER:
                    continue
            kind = EventType.DELETE if event.type == EventType.DELETE else EventType.UPDATE
            self._publish(kind, conn)

    def _connected(self, answer: Connection) -> None:
        """A connection that has been answered is one that can be monitored, as this hop sees it."""
        conn = Connection()
        conn.CopyFrom(answer)
        if conn.path.index + 1 < len(conn.path.path_segments):
            conn.path.index += 1
            conn.id = conn.path.path_segments[conn.path.index].id
            self._connections[conn.id] = conn
            self._publish(EventType.UPDATE, conn)

    def _forget(self, message: Any) -> None:
        """What our hop closes here is deleted."""
        asked = connection_of(message)
        own = {segment.id for segment in asked.path.path_segments} if asked is not None else set()
        for conn in list(self._connections.values()):
            if conn.id in own:
                del self._connections[conn.id]
                self._publish(EventType.DELETE, conn)

    def _publish(self, kind: EventType, conn: Connection) -> None:
        for queue, selector in self._watches.items():
            if matches(selector, conn):
                queue.put_nowait(ConnectionEvent(type=kind, connections={conn.id: conn}))

    async def monitor(self, selector: Selector) -> AsyncGenerator[ConnectionEvent, None]:
        queue: asyncio.Queue[ConnectionEvent] = asyncio.Queue()
        self._watches[queue] = selector
        try:
            known = {key: conn for key, conn in self._connections.items() if matches(selector, conn)}
            yield ConnectionEvent(type=EventType.INITIAL_STATE_TRANSFER, connections=known)
            while True:
                yield await queue.get()
        finally:
            del self._watches[queue]

    def left(self) -> list[Exchange]:
        """Recorded calls that have not come."""
        return list(self._waiting)


class _Handlers(grpc.GenericRpcHandler):
    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        method = METHODS.get(details.method)
        if method is None:
            return None
        if not method.server_streaming:

            async def unary(raw: bytes, context: Any) -> bytes:
                return await self._peer.unary(method, raw, context)

            return grpc.unary_unary_rpc_method_handler(unary)

        async def stream(raw: bytes, context: Any) -> AsyncIterator[bytes]:
            asked = method.request.FromString(raw)
            self._peer.stage.opened(method, _metadata(context))
            answers = self._peer.find(asked) if method.name == "Find" else self._peer.monitor(asked)
            try:
                async for answer in answers:
                    yield self._peer.stage.sent(answer)
            finally:
                await answers.aclose()

        return grpc.unary_stream_rpc_method_handler(stream)


def _metadata(context: Any) -> dict[str, str]:
    """What came beside a call, but for gRPC's own."""
    return {key: value for key, value in context.invocation_metadata() if key not in _OWN}


def _found(query: Any, entry: Any) -> bool:
    service = "network_service" in {field.name for field in query.DESCRIPTOR.fields}
    if service is not is_service(entry):
        return False
    if service:
        return service_matches(query.network_service, entry)
    return endpoint_matches(query.network_service_endpoint, entry)


def _response(entry: Any, gone: bool) -> Any:
    if is_service(entry):
        return NetworkServiceResponse(network_service=entry, deleted=gone)
    return NetworkServiceEndpointResponse(network_service_endpoint=entry, deleted=gone)
