# SPDX-License-Identifier: Apache-2.0
"""Between the four families and the methods of the wire, the same for every adapter.

Does:  `offers` lists what a `Bound` answers, by method, as functions over messages; `reach` builds a `Bound` over a
       `Carrier`, which is all that an adapter's client side has to be.
Place: between core and the adapters.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from google.protobuf.unknown_fields import UnknownFieldSet

from nsm_sdk import api
from nsm_sdk.api import Connection, ConnectionEvent, Empty, Message, Method, NetworkService, NetworkServiceEndpoint
from nsm_sdk.api.limits import SMALL, count_fields
from nsm_sdk.core import Bound, Call, E, Found, Next, Query, RegistryNext, WatchNext
from nsm_sdk.errors import DataLoss, InvalidRequest

Unary: TypeAlias = Callable[[Call, Any], Coroutine[Any, Any, Message]]
Stream: TypeAlias = Callable[[Call, Any], AsyncGenerator[Message, None]]
Exchange: TypeAlias = Callable[[Call, AsyncIterator[Any]], AsyncGenerator[Any, None]]
"""Handler of an extra method of any shape: gets what the caller sends, yields what it answers."""

Extra: TypeAlias = Mapping[Method[Any, Any], Exchange]
"""Methods that a listener offers besides the four families."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One method that is offered; exactly one of the functions is set."""

    method: Method[Any, Any]
    unary: Unary | None = None
    stream: Stream | None = None
    exchange: Exchange | None = None


class Carrier(Protocol):
    """The client side of an adapter, for one peer."""

    def unary(self, method: Method[Any, Any], call: Call, request: Message) -> Coroutine[Any, Any, Any]:
        """One message there, one back."""
        ...

    def stream(self, method: Method[Any, Any], call: Call, request: Message) -> AsyncGenerator[Any, None]:
        """One message there, any number back; whoever reads it closes it."""
        ...

    def exchange(self, method: Method[Any, Any], call: Call, requests: AsyncIterable[Any]) -> AsyncGenerator[Any, None]:
        """Any number of messages both ways."""
        ...


def asked(method: Method[Any, Any], raw: bytes) -> Any:
    """Decode what a caller sent. InvalidRequest for what is no such message, or one of far too many parts."""
    try:
        if len(raw) > SMALL:
            count_fields(raw, method.request.DESCRIPTOR)
        return method.request.FromString(raw)
    except InvalidRequest as error:
        raise InvalidRequest(f"{method.name}: {error.message}", hint=error.hint, element="transport") from None
    except Exception as error:
        raise InvalidRequest(
            f"{method.name}: not a {method.request.DESCRIPTOR.full_name}",
            element="transport",
            hint="send the message of the method's definition, its texts as UTF-8",
        ) from error


def answered(method: Method[Any, Any], raw: bytes, url: str) -> Any:
    """Decode what a peer answered. DataLoss for what is no such message, or one of far too many parts."""
    try:
        # An event of a stream may speak of thousands of connections.
        if len(raw) > SMALL and not method.server_streaming:
            count_fields(raw, method.response.DESCRIPTOR)
        return method.response.FromString(raw)
    except Exception as error:
        why = f": {error.message}" if isinstance(error, InvalidRequest) else ""
        raise DataLoss(
            f"{url} answered {method.name} with no {method.response.DESCRIPTOR.full_name}{why}",
            hint="is this the address of such a peer, and of a version that we understand?",
        ) from error


class Received:
    """What a caller sends, decoded one by one. Not a generator: a handler may leave it unread."""

    __slots__ = ("_method", "_raw")

    def __init__(self, method: Method[Any, Any], raw: AsyncIterable[bytes]) -> None:
        self._method = method
        self._raw = aiter(raw)

    def __aiter__(self) -> Received:
        return self

    async def __anext__(self) -> Any:
        return asked(self._method, await anext(self._raw))


def offers(bound: Bound, extra: Extra | None = None) -> dict[str, Offer]:
    """What `bound` answers, by the path of the method."""
    found: list[Offer] = []
    if bound.connection is not None:
        found += _connection(bound.connection)
    if bound.monitor is not None:
        found.append(Offer(method=api.MONITOR_CONNECTIONS, stream=bound.monitor.watch))
    if bound.ns is not None:
        found += _registry(_NS, bound.ns)
    if bound.nse is not None:
        found += _registry(_NSE, bound.nse)
    found += [Offer(method=method, exchange=handler) for method, handler in (extra or {}).items()]
    return {offer.method.path: offer for offer in found}


def reach(carrier: Carrier) -> Bound:
    """What a peer may offer; a family that it lacks answers `Unimplemented` when it is used."""
    unary, stream = carrier.unary, carrier.stream

    def request(call: Call, request: api.Request) -> Coroutine[Any, Any, Connection]:
        return unary(api.NETWORK_SERVICE_REQUEST, call, request)

    async def close(call: Call, conn: Connection) -> None:
        await unary(api.NETWORK_SERVICE_CLOSE, call, conn)

    def watch(call: Call, selector: api.Selector) -> AsyncGenerator[ConnectionEvent, None]:
        return stream(api.MONITOR_CONNECTIONS, call, selector)

    return Bound(
        connection=Next(request, close, (close,)),
        monitor=WatchNext(watch),
        ns=_reach_registry(_NS, carrier),
        nse=_reach_registry(_NSE, carrier),
    )


def _connection(next: Next) -> list[Offer]:
    async def close(call: Call, conn: Connection) -> Message:
        await next.close(call, conn)
        return Empty()

    return [
        Offer(method=api.NETWORK_SERVICE_REQUEST, unary=next.request),
        Offer(method=api.NETWORK_SERVICE_CLOSE, unary=close),
    ]


@dataclass(frozen=True, slots=True)
class _Registry:
    """The wire form of one kind of registry."""

    register: Method[Any, Any]
    unregister: Method[Any, Any]
    find: Method[Any, Any]
    field: str
    """The entry's field in queries and in their answers."""


_NS = _Registry(api.NS_REGISTER, api.NS_UNREGISTER, api.NS_FIND, "network_service")
_NSE = _Registry(api.NSE_REGISTER, api.NSE_UNREGISTER, api.NSE_FIND, "network_service_endpoint")


def _registry(wire: _Registry, next: RegistryNext[E]) -> list[Offer]:
    field = wire.field

    async def unregister(call: Call, entry: E) -> Message:
        await next.unregister(call, entry)
        return Empty()

    async def find(call: Call, query: Any) -> AsyncGenerator[Message, None]:
        asked = Query(getattr(query, field), query.watch, _unknown(query, field, "watch"))
        async with aclosing(next.find(call, asked)) as stream:
            async for found in stream:
                answer: Message = wire.find.response(**{field: found.entry, "deleted": found.deleted})
                if found.unknown:
                    answer.MergeFromString(found.unknown)
                yield answer

    return [
        Offer(method=wire.register, unary=next.register),
        Offer(method=wire.unregister, unary=unregister),
        Offer(method=wire.find, stream=find),
    ]


def _reach_registry(wire: _Registry, carrier: Carrier) -> RegistryNext[Any]:
    field = wire.field

    def register(call: Call, entry: E) -> Coroutine[Any, Any, E]:
        return carrier.unary(wire.register, call, entry)

    async def unregister(call: Call, entry: NetworkService | NetworkServiceEndpoint) -> None:
        await carrier.unary(wire.unregister, call, entry)

    async def find(call: Call, query: Query[Any]) -> AsyncGenerator[Found[Any], None]:
        request = wire.find.request(**{field: query.entry, "watch": query.watch})
        if query.unknown:
            request.MergeFromString(query.unknown)
        async with aclosing(carrier.stream(wire.find, call, request)) as stream:
            async for answer in stream:
                yield Found(getattr(answer, field), answer.deleted, _unknown(answer, field, "deleted"))

    return RegistryNext(register, unregister, find)


def _unknown(message: Any, *known: str) -> bytes:
    """The fields of a message besides those known, as they came."""
    fields: Any = UnknownFieldSet(message)
    if not len(fields):
        return b""
    rest = type(message)()
    rest.CopyFrom(message)
    for field in known:
        rest.ClearField(field)
    raw: bytes = rest.SerializeToString()
    return raw
