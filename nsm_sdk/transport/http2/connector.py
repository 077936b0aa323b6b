# SPDX-License-Identifier: Apache-2.0
"""The connection to one peer.

Does:  connects when the first call comes, and anew after the connection was lost. A call waits for a peer that is not
       there at most `dial_timeout`; the attempts go on as long as somebody waits.
Place: below `carrier`.
State: the connection, and who waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio

from nsm_sdk.api import Target
from nsm_sdk.core import Call
from nsm_sdk.errors import NotReached
from nsm_sdk.transport.http2.client import ClientConnection
from nsm_sdk.transport.http2.connection import Connections
from nsm_sdk.transport.settings import BACKOFF, ChannelSettings

ATTEMPT = 1.0
"""Seconds that one attempt gets at least."""


class Connector:
    """Keeps at most one connection, and at most one attempt."""

    def __init__(self, target: Target, settings: ChannelSettings, among: Connections[ClientConnection]) -> None:
        self.connection: ClientConnection | None = None
        """The last one; it may have closed."""
        self._former: list[ClientConnection] = []
        """Those that take no more calls, while calls are running on them."""
        self._target = target
        self._settings = settings
        self._among = among
        self._waiting: dict[asyncio.Future[bool], bool] = {}
        """Whether each of those who wait for an attempt waits for more of them."""
        self._dialing: anyio.CancelScope | None = None
        self._why = ""

    async def connected(self, call: Call) -> ClientConnection:
        """A connection whose peer has introduced itself. Raises NotReached: nothing was sent to anybody."""
        waits = min(self._settings.dial_timeout, call.remaining() * 0.8)
        with anyio.move_on_after(waits):
            while True:
                if self.connection is not None and self.connection.usable:
                    return self.connection
                if not await self._attempted(call) and not call.patient:
                    break
        why = f"; {self._why}" if self._why else ""
        raise NotReached(
            f"{self._target.url}: nobody answers",
            hop=call.runtime.name,
            hint=f"is the peer running, and is this its address? (waited {waits:.3g} s{why})",
        )

    def close(self) -> None:
        """Break the connection and any attempt."""
        self._retire()
        self._stop_dialing()
        former, self._former = self._former, []
        for connection in former:
            if not connection.closed:
                connection.close()

    def drop(self) -> None:
        """Let the connection go when its last call has ended."""
        if self.connection is not None:
            self.connection.drop()
        self._retire()

    def _retire(self) -> None:
        connection, self.connection = self.connection, None
        self._former = [one for one in (*self._former, connection) if one is not None and not one.closed]

    async def _attempted(self, call: Call) -> bool:
        """Wait for the end of an attempt: whether there is a connection, or a need to look again."""
        mine: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[mine] = call.patient
        if self._dialing is None:
            # In the role that needs it first; when that one ends, whoever still waits dials anew.
            self._dialing = call.runtime.spawn(self._dial, f"dial {self._target.url}")
        try:
            return await mine
        finally:
            del self._waiting[mine]
            if not self._waiting:
                # A peer that is not there is not to be called for ever.
                self._stop_dialing()

    def _stop_dialing(self) -> None:
        dialing, self._dialing = self._dialing, None
        if dialing is not None:
            dialing.cancel()

    async def _dial(self) -> None:
        mine = self._dialing
        try:
            while not await self._attempt():
                self._tell(False, patient=False)
                await anyio.sleep(BACKOFF)
        finally:
            if self._dialing is mine:
                self._dialing = None
                self._tell(True, patient=True)

    def _tell(self, found: bool, *, patient: bool) -> None:
        """Tell those who wait; the patient ones only if `patient`."""
        for waiting, more in self._waiting.items():
            if not waiting.done() and (patient or not more):
                waiting.set_result(found)

    async def _attempt(self) -> bool:
        loop = asyncio.get_running_loop()
        settled: asyncio.Future[str] = loop.create_future()
        made: list[ClientConnection] = []

        def settle(why: str) -> None:
            if not settled.done():
                settled.set_result(why)

        def factory() -> ClientConnection:
            target, settings = self._target, self._settings
            connection = ClientConnection(
                target.address if target.host else f"localhost:{target.port}" if target.port else "localhost",
                self._among,
                max_message=settings.max_message,
                ping_every=settings.ping_every,
                settled=settle,
            )
            made.append(connection)
            return connection

        self._why = "nothing came back"
        try:
            with anyio.move_on_after(max(self._settings.dial_timeout, ATTEMPT)):
                try:
                    await self._open(factory)
                    self._why = await settled
                except OSError as error:
                    self._why = error.strerror or str(error)
            if not self._why and made[0].usable:
                self._retire()
                self.connection = made.pop()
            elif not self._why:
                self._why = made[0].goodbye
        finally:
            for connection in made:
                connection.give_up()
        return not made and not self._why

    async def _open(self, factory: Callable[[], ClientConnection]) -> None:
        loop = asyncio.get_running_loop()
        target = self._target
        if target.network == "tcp":
            # A host that is left out is this machine.
            await loop.create_connection(factory, target.host or "localhost", target.port)
        else:
            path = f"\0{target.address[1:]}" if target.address.startswith("@") else target.address
            await loop.create_unix_connection(factory, path)
