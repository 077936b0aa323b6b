# SPDX-License-Identifier: Apache-2.0
"""The payload of network services that do not name theirs.

Does:  gives a network service that is registered without a payload the default one.
Place: in a registry's chain of network services, above the store.
State: none.
"""

from __future__ import annotations

from nsm_sdk.api import NetworkService
from nsm_sdk.core import Call, RegistryElement, RegistryNext


class SetPayload(RegistryElement[NetworkService]):
    """Set `payload` where a registration has none."""

    def __init__(self, payload: str = "IP") -> None:
        self.payload = payload

    async def register(self, call: Call, entry: NetworkService, next: RegistryNext[NetworkService]) -> NetworkService:
        if not entry.payload:
            entry.payload = self.payload
        return await next.register(call, entry)
