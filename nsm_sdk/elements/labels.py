# SPDX-License-Identifier: Apache-2.0
"""Elements that add to a request: labels that say where the client runs, and extra context."""

from __future__ import annotations

from collections.abc import Mapping

from nsm_sdk.api import Connection, Request
from nsm_sdk.api.context import with_client_info
from nsm_sdk.core import Call, Element, Next


class ClientInfo(Element):
    """Add the labels `nodeName`, `podName` and `clusterName` where a request does not set them.

    Their values are NODE_NAME, POD_NAME and CLUSTER_NAME of `environment`; nothing else of it is kept. For
    managers, above discovery, and for clients.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.labels = with_client_info({}, environment)

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        labels = request.connection.labels
        for label, value in self.labels.items():
            if label not in labels:
                labels[label] = value
        return await next.request(call, request)


class SetExtraContext(Element):
    """Set `pairs` in the extra context of each request; pairs of the request under other keys stay."""

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.pairs = dict(pairs)

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if self.pairs:
            request.connection.context.extra_context.update(self.pairs)
        return await next.request(call, request)
