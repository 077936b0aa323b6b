# SPDX-License-Identifier: Apache-2.0
"""Things that start and stop: `Service` with the role that uses it, `Block` with an `async with` of an application.

A service is a table, pool, hub or cache that elements hold. One that is running refuses a second start, because two
roles that share it would see each other's state.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from nsm_sdk.errors import ProgrammingError, ServingTwice

if TYPE_CHECKING:
    from nsm_sdk.core.observe import Observer
    from nsm_sdk.core.role import Running
    from nsm_sdk.core.runtime import Clock, Runtime


class Service:
    """Something that runs while its chain is served. `shareable` ones may be started by several roles at once."""

    shareable: ClassVar[bool] = False
    _starts: int = 0

    async def start(self, runtime: Runtime) -> None:
        """Called once before the first call arrives; background work goes to `runtime.spawn`."""

    async def stop(self) -> None:
        """Called once after the last call has ended; must not raise."""

    async def acquire(self, runtime: Runtime) -> None:
        """Start, unless a shareable service is running already."""
        if self._starts and not self.shareable:
            raise ServingTwice(
                f"{type(self).__name__} is in use by a role that is being served",
                hint="build a chain of its own for every role that is served at the same time",
            )
        self._starts += 1
        if self._starts == 1:
            try:
                await self.start(runtime)
            except BaseException:
                self._starts = 0
                raise

    async def release(self) -> None:
        """Stop, when the last user goes."""
        self._starts -= 1
        if not self._starts:
            await self.stop()


class Block:
    """Something called `name`, of the sort `sort`."""

    sort: ClassVar[str]
    name: str

    async def start(self, *, clock: Clock | None = None, observe: Observer | None = None) -> Self:
        """What `async with` does at its start."""
        raise NotImplementedError

    async def stop(self) -> None:
        """What `async with` does at its end; more than once is no error."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _need(self, running: Running | None) -> Running:
        if running is None:
            raise ProgrammingError(
                f"{self.sort} {self.name!r} is not running", hint=f"use it inside `async with {self.sort}:`"
            )
        return running

    def _only_once(self, running: object) -> None:
        if running is not None:
            raise ProgrammingError(
                f"{self.sort} {self.name!r} is running already", hint=f"make one {self.sort} for each `async with`"
            )
