# SPDX-License-Identifier: Apache-2.0
"""The end of a path.

Does:  cuts off what an answer's path has to the right of this hop, if the request has gone no further. Such segments
       are left over from an endpoint that was there before.
Place: in endpoints, below `Monitor` (watchers shall see the path as it is); harmless in hops that go on.
State: reads `FAR`, to know whether the connection goes on.
"""

from __future__ import annotations

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.elements.far import FAR


class TrimPath(Element):
    """Let the path end here, unless `Connect` below has sent the request on."""

    _far = FAR

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = await next.request(call, request)
        if FAR.get(call) is None:
            del conn.path.path_segments[conn.path.index + 1 :]
        return conn
