# SPDX-License-Identifier: Apache-2.0
"""The query family: DNS.

Does:  `QueryElement` is the base of DNS handlers; messages are whatever the DNS room's message border makes of them.
Place: chains of `nsm_sdk.dns`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, TypeAlias, final

from nsm_sdk.core.call import Call
from nsm_sdk.core.chain import Layer, passes

QueryFn: TypeAlias = Callable[[Call, Any], Coroutine[Any, Any, Any]]


@final
class QueryNext:
    """The rest of a DNS chain, already bound."""

    __slots__ = ("query",)

    def __init__(self, query: QueryFn) -> None:
        self.query = query


class QueryElement(Layer[QueryNext]):
    """One step of a DNS chain."""

    verbs: ClassVar[tuple[str, ...]] = ("query",)
    next_type = QueryNext

    @passes
    async def query(self, call: Call, message: Any, next: QueryNext) -> Any:
        """Answer a question, or let the next element answer it."""
        return await next.query(call, message)


async def _end_query(call: Call, message: Any) -> None:
    return None


QUERY_END = QueryNext(_end_query)
"""What follows the last element: no answer."""
