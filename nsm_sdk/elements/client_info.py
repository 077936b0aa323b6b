# SPDX-License-Identifier: Apache-2.0
"""Labels that say where a client runs.

Does:  adds `nodeName`, `podName` and `clusterName` to the labels of a request, where they are not set already.
Place: in a manager above discovery, and in clients.
State: none.
"""

from __future__ import annotations

from collections.abc import Mapping

from nsm_sdk.api import Connection, Request
from nsm_sdk.api.context import with_client_info
from nsm_sdk.core import Call, Element, Next


class ClientInfo(Element):
    """Add what `environment` says under NODE_NAME, POD_NAME and CLUSTER_NAME; nothing else of it is kept."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.labels = with_client_info({}, environment)

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        labels = request.connection.labels
        for label, value in self.labels.items():
            if label not in labels:
                labels[label] = value
        return await next.request(call, request)
