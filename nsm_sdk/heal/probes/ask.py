# SPDX-License-Identifier: Apache-2.0
"""Checks that the application makes itself.

Does:  asks a function whether a connection is alive. An error or no answer in time is no life sign.
Place: where the application knows best, and in tests.
State: none.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from nsm_sdk.api import Connection
from nsm_sdk.heal.probes.base import ALIVE, Probe, Target, Verdict

Alive: TypeAlias = Callable[[Connection], Awaitable[bool]]


class Ask(Probe):
    """`alive` gets the connection, its own copy; false or an exception means dead."""

    def __init__(self, alive: Alive) -> None:
        self.alive = alive

    async def check(self, target: Target, timeout: float) -> Verdict:
        conn = Connection() if target.snapshot is None else target.snapshot.connection()
        return ALIVE if await self.alive(conn) else Verdict(False, "the application's check says no")

    def failed(self, error: Exception) -> Verdict:
        return Verdict(False, f"the application's check failed: {type(error).__name__}: {error}")
