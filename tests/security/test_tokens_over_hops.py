# SPDX-License-Identifier: Apache-2.0
"""Tokens, timeouts and refreshes of three hops together, in virtual time.

Does:  a client refreshes before its tokens expire; what a client that has died leaves is closed on every hop behind it.
Place: nsm_sdk.security and the elements that go by the expiry of tokens.
State: none.
"""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack

import pytest

from nsm_sdk.api import Connection, Request
from nsm_sdk.api.tokens import claims
from nsm_sdk.core import Chain, ConnectionChain, Next, Role, Running
from nsm_sdk.elements import Begin, ClientUrl, Connect, Refresh, Timeout, TrimPath, UpdatePath
from nsm_sdk.errors import NsmError, Unauthenticated
from nsm_sdk.security import Authenticate, Insecure, TokenGenerator, UpdateToken
from nsm_sdk.testing import Probe, VirtualClock, virtual_time
from nsm_sdk.transport import Dialer, listen

_numbers = itertools.count(1)


class Hops:
    """Client, manager and endpoint in one process."""

    def __init__(self, lifetime: float, client_tokens: bool = True) -> None:
        number = next(_numbers)
        self.urls = [f"inproc://tokens-{role}-{number}" for role in ("manager", "endpoint")]
        self.endpoint = Probe()
        self.begins: dict[str, Begin] = {}
        self._lifetime = lifetime
        self._client_tokens = client_tokens

    def _tokens(self, role: str) -> TokenGenerator:
        return TokenGenerator(Insecure(role, role), max_lifetime=self._lifetime)

    def _begin(self, role: str) -> Begin:
        self.begins[role] = Begin(merges=role == "client")
        return self.begins[role]

    def _served(self, role: str, tokens: TokenGenerator, *rest: Chain[Next] | Probe) -> Role:
        chain: ConnectionChain = Chain(
            role,
            UpdatePath(role, opens=False),
            Authenticate(),
            self._begin(role),
            UpdateToken(tokens),
            Timeout(),
            TrimPath(),
            *rest,
        )
        return Role(role, connection=chain)

    def _onward(self, url: str, tokens: TokenGenerator | None) -> Chain[Next]:
        return Chain("onward", ClientUrl(url), Connect(Dialer(tokens=tokens)))

    async def start(self, stack: AsyncExitStack, *, refresh: bool = True) -> Running:
        """All three, endpoint first; answers the client."""
        clock = VirtualClock()
        endpoint = self._served("endpoint", self._tokens("endpoint"), self.endpoint)
        await stack.enter_async_context(endpoint.serving(listen=[listen(self.urls[1])], clock=clock))
        tokens = self._tokens("manager")
        manager = self._served("manager", tokens, self._onward(self.urls[1], tokens))
        self.manager = await stack.enter_async_context(manager.serving(listen=[listen(self.urls[0])], clock=clock))
        own = self._tokens("client") if self._client_tokens else None
        extra = [Refresh()] if refresh else []
        chain: ConnectionChain = Chain(
            "client", UpdatePath("client"), self._begin("client"), *extra, self._onward(self.urls[0], own)
        )
        role = Role("client", connection=chain, services=[own] if own is not None else [])
        return await stack.enter_async_context(role.serving(clock=clock))


async def request(client: Running) -> Connection:
    assert client.bound.connection is not None
    asked = Request(connection=Connection(network_service="s", id="c-1"))
    return await client.bound.connection.request(client.call(timeout=15.0), asked)


@virtual_time
async def test_every_segment_has_its_hops_token() -> None:
    hops = Hops(600)
    async with AsyncExitStack() as stack:
        client = await hops.start(stack)
        conn = await request(client)
        said = [claims(hop.token).subject for hop in conn.path.path_segments]
        assert said == [f"spiffe://insecure.test/{role}/{role}" for role in ("client", "manager", "endpoint")]
        assert all(hop.expires.seconds for hop in conn.path.path_segments)


@virtual_time
async def test_a_client_that_refreshes_keeps_its_connection() -> None:
    hops = Hops(600)
    async with AsyncExitStack() as stack:
        client = await hops.start(stack)
        await request(client)
        await VirtualClock().advance(6 * 3600.0)
        assert hops.endpoint.seen.closes == 0
        # A fifth of the life; a token may be handed out until a twentieth of it has passed.
        assert 6 * 3600.0 / 125 <= hops.endpoint.seen.requests <= 6 * 3600.0 / 110
        assert {name: len(begin) for name, begin in hops.begins.items()} == dict.fromkeys(hops.begins, 1)


@virtual_time
async def test_what_a_dead_client_leaves_is_closed_before_its_token_expires() -> None:
    hops = Hops(600)
    async with AsyncExitStack() as stack:
        client = await hops.start(stack)
        await request(client)
        client.kill()
        await client.wait_ended()
        await VirtualClock().advance(560)
        assert hops.endpoint.seen.closes == 0
        await VirtualClock().advance(40)
        assert hops.endpoint.seen.closes >= 1
        assert len(hops.begins["manager"]) == len(hops.begins["endpoint"]) == 0


@pytest.mark.parametrize("lifetime", [1.0, 5.0])
def test_tokens_that_live_shorter_than_a_request_may_take(lifetime: float) -> None:
    @virtual_time
    async def run() -> None:
        hops = Hops(lifetime)
        async with AsyncExitStack() as stack:
            client = await hops.start(stack)
            await request(client)
            await VirtualClock().advance(100 * lifetime)
            assert hops.endpoint.seen.closes == 0

    run()


@virtual_time
async def test_a_client_without_tokens_gets_no_further_than_the_manager() -> None:
    hops = Hops(600, client_tokens=False)
    async with AsyncExitStack() as stack:
        client = await hops.start(stack)
        with pytest.raises(NsmError) as caught:
            await request(client)
        assert isinstance(caught.value, Unauthenticated)
        assert caught.value.element == "Authenticate.request"
        # Not even for a moment is there anything to undo.
        manager = hops.begins["manager"]
        assert (len(manager), len(manager._locks)) == (0, 0)
        assert not [name for name in hops.manager.runtime.running if name.startswith("begin")]
        await VirtualClock().advance(5)
        assert hops.endpoint.seen.calls == []
        assert all(len(begin) == 0 for begin in hops.begins.values())
