# SPDX-License-Identifier: Apache-2.0
"""Extra context for every connection.

Does:  writes fixed pairs into a connection's extra context, over what is there under the same keys.
Place: in an endpoint, anywhere below `Begin`.
State: none.
"""

from __future__ import annotations

from collections.abc import Mapping

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Next


class SetExtraContext(Element):
    """Set `pairs` on each request."""

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.pairs = dict(pairs)

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if self.pairs:
            request.connection.context.extra_context.update(self.pairs)
        return await next.request(call, request)
