# SPDX-License-Identifier: Apache-2.0
"""Registry, manager and registrant over real sockets, restarted.

Does:  waits for what watches tell; nothing sleeps.
Place: tests of the registry room.
State: sockets in a folder of the test's own.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

from nsm_sdk.api import NetworkService
from nsm_sdk.core import Query, Running
from nsm_sdk.transport import Dialer, listen
from tests.registry.chains import Tokens, manager_role, registrar_role, registry_role
from tests.registry.test_store import nse


async def appears(running: Running, name: str, url: str) -> None:
    """Wait until an endpoint of that name is found at that URL."""
    bound: Any = running.bound.nse
    async with asyncio.timeout(20), aclosing(bound.find(running.call(), Query(nse(name), watch=True))) as stream:
        async for found in stream:
            if not found.deleted and found.entry.url == url:
                return


async def test_registry_and_manager_are_restarted(tmp_path: Path) -> None:
    registry_url, manager_url = f"unix://{tmp_path}/registry", f"unix://{tmp_path}/manager"
    near, far = Dialer(Tokens("spiffe://a.test/nse")), Dialer(Tokens("spiffe://example.org/nsmgr-1"))
    manager = manager_role(far, registry_url, url=manager_url)
    registrar = registrar_role(near, manager_url)
    try:
        async with registrar.serving() as low:
            ns: Any = low.bound.ns
            endpoints: Any = low.bound.nse
            async with manager.serving(listen=[listen(manager_url)]):
                async with registry_role().serving(listen=[listen(registry_url)]) as top:
                    await ns.register(low.call(timeout=10), NetworkService(name="svc"))
                    answer = await endpoints.register(low.call(timeout=10), nse("a", "svc", url="tcp://a:1"))
                    assert answer.url == "tcp://a:1"
                    assert list(answer.path_ids) == [
                        "spiffe://a.test/nse",
                        "spiffe://example.org/nsmgr-1",
                        "spiffe://example.org/registry",
                    ]
                    await appears(top, "a", manager_url)
                    top.kill()
                async with registry_role().serving(listen=[listen(registry_url)]) as top:
                    await appears(top, "a", manager_url)
                    top.kill()
            async with (
                registry_role().serving(listen=[listen(registry_url)]),
                manager_role(far, registry_url, url=manager_url).serving(listen=[listen(manager_url)]) as mid,
            ):
                await appears(mid, "a", "tcp://a:1")
                await endpoints.unregister(low.call(timeout=10), nse("a"))
    finally:
        await near.stop()
        await far.stop()
