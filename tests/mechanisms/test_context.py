# SPDX-License-Identifier: Apache-2.0
"""A refresh with another context changes both interfaces in place, on a kernel in memory.

Does:  for random rows of contexts, with restarts of the forwarder between them: the interfaces are the same ones, what
       is there is what the context says, and what the application has put on them stays.
Place: KernelDatapath on FakeNetlink.
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, Mechanism
from nsm_sdk.core import Runtime
from nsm_sdk.mechanisms import (
    CLIENT_SIDE,
    ENDPOINT_SIDE,
    Address,
    KernelDatapath,
    Neighbour,
    Observed,
    Route,
    Tag,
    desired,
    diff,
)
from nsm_sdk.mechanisms.desired import placed
from nsm_sdk.mechanisms.ports import Joint
from nsm_sdk.netlink import FakeNetlink
from tests.contexts import CONTEXTS, fill

A, B = "file:///run/netns/a", "file:///run/netns/b"
NO_RUNTIME = Runtime.__new__(Runtime)
THEIRS = Observed(
    addresses=frozenset({Address("192.0.2.7", 32, ours=False), Address("10.0.0.77", 24, ours=False)}),
    routes=frozenset({Route(dst="198.51.100.0", prefix=24, ours=False), Route(dst="fd00:78::", prefix=64, ours=False)}),
    neighbours=frozenset({Neighbour("10.0.0.66", "02:00:00:00:00:66", permanent=True, ours=False)}),
)


def joint(context: dict[str, Any]) -> Joint:
    conn = Connection(id="c-1")
    conn.path.path_segments.add(name="nsc", id="s-1")
    fill(conn, context)
    near, far = (
        Mechanism(type="KERNEL", parameters={"inodeURL": url, "name": name}) for name, url in (("near", A), ("far", B))
    )
    return Joint(connection=conn, near=near, far=far)


@given(st.lists(CONTEXTS, min_size=2, max_size=4), st.lists(st.booleans(), min_size=4, max_size=4), st.booleans())
def test_any_change_of_context_is_made_in_place(
    contexts: list[dict[str, Any]], restarts: list[bool], addresses: bool
) -> None:
    async def run(folder: Path) -> None:
        netlink = FakeNetlink()
        spaces = netlink.add_namespace(A), netlink.add_namespace(B)
        theirs = THEIRS if addresses else replace(THEIRS, addresses=frozenset())
        datapath = KernelDatapath(netlink, name="f", state=folder)
        await datapath.start(NO_RUNTIME)
        await datapath.join(joint(contexts[0]))
        before = [link for space in spaces for link in space.links()]
        for space, link in zip(spaces, before, strict=True):
            seen = space.state[link.index]
            space.state[link.index] = replace(
                seen,
                addresses=seen.addresses | theirs.addresses,
                routes=seen.routes | theirs.routes,
                neighbours=seen.neighbours | theirs.neighbours,
            )
        for context, restart in zip(contexts[1:], restarts, strict=False):
            if restart:
                datapath = KernelDatapath(netlink, name="f", state=folder)
                await datapath.start(NO_RUNTIME)
            wanted = joint(context)
            await datapath.join(wanted)
            assert [link.index for space in spaces for link in space.links()] == [link.index for link in before]
            for space, link, mechanism, role in zip(
                spaces, before, (wanted.near, wanted.far), (CLIENT_SIDE, ENDPOINT_SIDE), strict=True
            ):
                tag = Tag(forwarder="f", role=role, segment="s-1", connection="c-1")
                want = desired(wanted.connection, mechanism, tag)
                seen = space.observe(link.index, tag.tables)
                assert diff(placed(want, seen), seen) == []
                assert seen.addresses >= theirs.addresses
                assert seen.routes >= theirs.routes
                assert seen.neighbours >= theirs.neighbours
        await datapath.part(joint(contexts[0]).connection)
        assert not any(space.links() or space.rules for space in spaces)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(Path(folder)))
