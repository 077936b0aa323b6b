# SPDX-License-Identifier: Apache-2.0
"""How to build each exported connection element for the contract suite.

Does:  one entry per element that cannot be built without arguments, or that owns fields, or that leaves points out.
       Elements without an entry are built as `Kind()`.
Place: read by test_contract.py. Add your element here when its test says so.
State: none.
"""

from __future__ import annotations

from nsm_sdk.core import Bound, Element
from nsm_sdk.elements import Begin, Connect, Hub, Monitor, UpdatePath
from nsm_sdk.testing import Contract


class Towards(Element):
    """Chooses the next hop."""

    async def request(self, call, request, next):  # type: ignore[no-untyped-def]
        call.url = "inproc://next"
        return await next.request(call, request)


TABLE: dict[str, Contract] = {
    # -- nsm_sdk.elements -----------------------------------------------------------------------------------------
    "Begin": Contract(factory=Begin),
    "Connect": Contract(
        joined=lambda below: Connect(lambda url: Bound(connection=below)),
        above=lambda: (Towards(),),
    ),
    "Monitor": Contract(factory=lambda: Monitor(Hub())),
    "UpdatePath": Contract(
        factory=lambda: UpdatePath("hop"),
        owns=frozenset({"connection.path", "connection.id"}),
        skips={7: "it refuses a connection whose path cannot be right"},
    ),
}
