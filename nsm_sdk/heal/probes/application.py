# SPDX-License-Identifier: Apache-2.0
"""Probes at the level of an application: `Tcp` opens connections to a port, `Ask` calls a function of yours.

A refused connection is proof of life, too, unless told otherwise: the packet went there and back. For networks where
pings are filtered, or where a service and not only its host is meant.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from nsm_sdk.api import Connection
from nsm_sdk.heal.probes.probe import ALIVE, Inside, Probe, Target, Verdict, entering, here


class Tcp(Probe):
    """Connect to `port` of every destination."""

    def __init__(self, port: int, *, refused_is_alive: bool = True, inside: Inside = here) -> None:
        self.port = port
        self.refused_is_alive = refused_is_alive
        self._inside = entering(inside)

    def why_not(self, target: Target) -> str:
        return "" if target.pairs else "there is no pair of addresses to connect"

    async def check(self, target: Target, timeout: float) -> Verdict:
        for verdict in await asyncio.gather(*(self._one(target, src, dst) for src, dst in target.pairs)):
            if not verdict.alive:
                return verdict
        return ALIVE

    async def _one(self, target: Target, src: str, dst: str) -> Verdict:
        family = socket.AF_INET6 if ":" in src else socket.AF_INET
        flags = socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        with self._inside(target.namespace, lambda: socket.socket(family, flags)) as channel:
            try:
                channel.bind((src, 0))
                await asyncio.get_running_loop().sock_connect(channel, (dst, self.port))
            except ConnectionRefusedError:
                if not self.refused_is_alive:
                    return Verdict(False, f"{dst} refuses port {self.port}")
            except OSError as error:
                return Verdict(False, f"{src} > {dst} port {self.port}: {error.strerror or error}")
        return ALIVE


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
