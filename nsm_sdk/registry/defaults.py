# SPDX-License-Identifier: Apache-2.0
"""Fields that a registry fills in.

Does:  `DefaultPayload` gives a service a payload, `RegistrationTime` keeps the time at which an endpoint was registered
       first, `NodeLabels` adds labels that say where an endpoint runs.
Place: `DefaultPayload` and `RegistrationTime` above the store of a registry; `NodeLabels` below `Begin` in a manager.
State: the first registration's time, per name.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from nsm_sdk.api import NetworkService, NetworkServiceEndpoint, Timestamp
from nsm_sdk.api.path import timestamp
from nsm_sdk.core import Call, RegistryElement, RegistryNext, Slot
from nsm_sdk.registry.begin import Begin
from nsm_sdk.registry.path import TAKEOVER_KEY

logger = logging.getLogger("nsm_sdk.registry")


class DefaultPayload(RegistryElement[NetworkService]):
    """Services without a payload get this one."""

    def __init__(self, payload: str = "IP") -> None:
        self.payload = payload

    async def register(self, call: Call, entry: NetworkService, next: RegistryNext[NetworkService]) -> NetworkService:
        if not entry.payload:
            entry.payload = self.payload
        return await next.register(call, entry)


class RegistrationTime(RegistryElement[NetworkServiceEndpoint]):
    """The time of the first registration: as given or now, and the same ever after until it is unregistered.

    Says at WARNING when another endpoint takes over a name."""

    needs = (Begin,)

    def __init__(self) -> None:
        self._since = Slot[Timestamp]("first registration")
        self._url = Slot[str]("where the endpoint listens")

    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        since = self._since.get(call)
        if since is None:
            since = timestamp(call.runtime.clock.wall())
            if entry.HasField("initial_registration_time"):
                since.CopyFrom(entry.initial_registration_time)
            self._since.set(call, since)
        entry.initial_registration_time.CopyFrom(since)
        url, before = entry.url, self._url.get(call)
        self._url.set(call, url)
        former, _, newer = (call.onward.get(TAKEOVER_KEY) or call.metadata.get(TAKEOVER_KEY, "")).partition(" ")
        registered = await next.register(call, entry)
        if former and newer:
            before, url = former, newer
        if before is not None and before != url:
            logger.warning(
                "%s: endpoint %r at %.200s takes over the name from the one at %.200s; "
                "if both live, give each a name of its own (NSM_NAME)",
                call.runtime.name,
                entry.name,
                url,
                before,
            )
        return registered

    async def unregister(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> None:
        self._since.pop(call)
        self._url.pop(call)
        await next.unregister(call, entry)


class NodeLabels(RegistryElement[NetworkServiceEndpoint]):
    """Labels for every service that an endpoint gives labels for; those that are set already stay.

    `labels` are final names and values, for example `with_client_info({}, os.environ)`.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = dict(labels)

    async def register(
        self, call: Call, entry: NetworkServiceEndpoint, next: RegistryNext[NetworkServiceEndpoint]
    ) -> NetworkServiceEndpoint:
        for given in entry.network_service_labels.values():
            for label, value in self.labels.items():
                if label not in given.labels:
                    given.labels[label] = value
        return await next.register(call, entry)
