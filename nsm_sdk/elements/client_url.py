# SPDX-License-Identifier: Apache-2.0
"""A fixed next hop.

Does:  sends every connection on to one URL.
Place: above `Connect`, in clients and in hops that know no other way.
State: none.
"""

from __future__ import annotations

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Next


class ClientUrl(Element):
    """The next hop is `url`; an empty one leaves it to whoever chose before."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        call.url = self.url or call.url
        return await next.request(call, request)

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        call.url = self.url or call.url
        await next.close(call, conn)
