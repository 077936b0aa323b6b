# SPDX-License-Identifier: Apache-2.0
"""What runs as long as an `async with`.

Does:  lets `start` and `stop` be the two ends of a block, and says so when something is used outside of it, or started
       twice.
Place: base of what applications use: `Client`, `Endpoint`.
State: whether it runs; each subclass says so.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Self

from nsm_sdk.errors import ProgrammingError

if TYPE_CHECKING:
    from nsm_sdk.core.clock import Clock
    from nsm_sdk.core.observe import Observer
    from nsm_sdk.core.role import Running


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
