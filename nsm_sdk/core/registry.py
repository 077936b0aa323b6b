# SPDX-License-Identifier: Apache-2.0
"""The registry family: register, unregister, find; one set of elements for network services and endpoints.

Does:  `RegistryElement[E]` is generic over what is registered; `Kind[E]` says how to name, query and answer one.
Place: chains of registries, managers, and of whoever registers or looks up.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar, final

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint
from nsm_sdk.core.call import Call
from nsm_sdk.core.chain import Layer, passes

E = TypeVar("E", bound=NetworkService | NetworkServiceEndpoint)


@dataclass(frozen=True, slots=True)
class Query(Generic[E]):
    """What is looked for: empty fields of `entry` match anything; `watch` keeps the answer open for changes."""

    entry: E
    watch: bool = False
    unknown: bytes = b""
    """Fields of a newer caller, as they came; only passed on."""


@dataclass(frozen=True, slots=True)
class Found(Generic[E]):
    """One answer of a find: an entry as it is now, or one that is gone."""

    entry: E
    deleted: bool = False
    unknown: bytes = b""
    """Fields of a newer registry, as they came; only passed on."""


@dataclass(frozen=True, slots=True)
class Kind(Generic[E]):
    """One of the two things that registries hold."""

    label: str
    message: type[E]

    def copy(self, entry: E) -> E:
        """A copy that shares nothing with `entry`."""
        copied: Any = self.message()
        copied.CopyFrom(entry)
        result: E = copied
        return result


NS: Kind[NetworkService] = Kind("network service", NetworkService)
NSE: Kind[NetworkServiceEndpoint] = Kind("endpoint", NetworkServiceEndpoint)

RegisterFn: TypeAlias = Callable[[Call, E], Coroutine[Any, Any, E]]
UnregisterFn: TypeAlias = Callable[[Call, E], Coroutine[Any, Any, None]]
FindFn: TypeAlias = Callable[[Call, Query[E]], AsyncGenerator[Found[E], None]]


@final
class RegistryNext(Generic[E]):
    """The rest of a registry chain, already bound."""

    __slots__ = ("find", "register", "unregister")

    def __init__(self, register: RegisterFn[E], unregister: UnregisterFn[E], find: FindFn[E]) -> None:
        self.register = register
        self.unregister = unregister
        self.find = find


class RegistryElement(Layer[RegistryNext[E]], Generic[E]):
    """One step of a registry's chain; override what you need."""

    verbs: ClassVar[tuple[str, ...]] = ("register", "unregister", "find")
    verb_results: ClassVar[Mapping[str, tuple[type[Any], ...]]] = {
        "register": (NetworkService, NetworkServiceEndpoint),
        "find": (Found,),
    }
    next_type = RegistryNext

    @passes
    async def register(self, call: Call, entry: E, next: RegistryNext[E]) -> E:
        """Register or refresh; answers the entry as it is registered now."""
        return await next.register(call, entry)

    @passes
    async def unregister(self, call: Call, entry: E, next: RegistryNext[E]) -> None:
        """Remove; an entry nobody knows is no error."""
        await next.unregister(call, entry)

    @passes
    def find(self, call: Call, query: Query[E], next: RegistryNext[E]) -> AsyncGenerator[Found[E], None]:
        """What matches, and with `query.watch` what changes until the caller closes the generator.

        Write it as an asynchronous generator. Whoever reads it must close it (`aclosing`), or use `find_all`.
        """
        return next.find(call, query)


async def find_all(next: RegistryNext[E], call: Call, query: Query[E]) -> list[E]:
    """All entries of a plain find (not for watches)."""
    async with aclosing(next.find(call, query)) as stream:
        return [found.entry async for found in stream if not found.deleted]


async def find_one(next: RegistryNext[E], call: Call, query: Query[E]) -> E | None:
    """The first entry of a find or watch, or None; the rest of the stream is closed properly."""
    async with aclosing(next.find(call, query)) as stream:
        async for found in stream:
            if not found.deleted:
                return found.entry
    return None


def registry_end() -> RegistryNext[Any]:
    """What follows the last element: registers nothing, finds nothing."""

    async def register(call: Call, entry: Any) -> Any:
        return entry

    async def unregister(call: Call, entry: Any) -> None:
        return None

    async def find(call: Call, query: Query[Any]) -> AsyncGenerator[Found[Any], None]:
        nothing: tuple[Found[Any], ...] = ()
        for found in nothing:
            yield found

    return RegistryNext(register, unregister, find)
