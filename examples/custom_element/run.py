# SPDX-License-Identifier: Apache-2.0
"""An element of one's own that holds something per connection: at most so many seats, and those by turns.

The same class is driven alone, checked against the contract of all elements, and served in an endpoint.
"""

import anyio

from nsm_sdk import Call, Client, Connection, Element, Endpoint, Next, Request, Slot
from nsm_sdk.errors import Exhausted, NsmError
from nsm_sdk.ipam import PointToPointIpam
from nsm_sdk.lab import INPROC, Cluster, Mode


class Seats(Element):
    """Let at most `seats` connections in."""

    def __init__(self, seats: int) -> None:
        self.seats = seats
        self._free = seats
        self._held: Slot[bool] = Slot("seat")

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if not self._held.get(call):
            if not self._free:
                raise Exhausted(f"all {self.seats} seats are taken", hint="close a connection, or buy more seats")
            self._free -= 1
            self._held.set(call, True)
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if self._held.pop(call):
            self._free += 1
        await next.close(call, conn)


async def main(mode: Mode) -> None:
    async with Cluster(mode) as cluster:
        node = await cluster.node()
        manager, listen = node.manager.url, cluster.address("theatre")
        work = (Seats(1), PointToPointIpam("10.0.0.0/24"))
        async with (
            Endpoint("theatre", *work, service="theatre", registry=manager, listen=listen),
            Client(manager, name="early") as early,
            Client(manager, name="late", timeout=2.0) as late,
        ):
            async with early.connect("kernel://theatre/nsm-1") as connection:
                print("early sits at", connection.src)
                try:
                    async with late.connect("kernel://theatre/nsm-1"):
                        raise AssertionError("there is one seat only")
                except NsmError as error:
                    print("late is told:", error)
                    assert "all 1 seats are taken" in str(error)
                    assert error.hop == "theatre"
            async with late.connect("kernel://theatre/nsm-1") as connection:
                print("late sits at ", connection.src)


if __name__ == "__main__":
    anyio.run(main, INPROC)
