# SPDX-License-Identifier: Apache-2.0
"""Shared services: tables, pools, hubs and caches that elements hold and that live as long as a role is served.

Does:  `Service` has a start and a stop; `Role` calls them. A service that is running already refuses a second start,
       because two roles that share one would see each other's state.
Place: attribute of an element; found by `Layer.services`.
State: whether it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from nsm_sdk.errors import ServingTwice

if TYPE_CHECKING:
    from nsm_sdk.core.runtime import Runtime


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
