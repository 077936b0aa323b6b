# SPDX-License-Identifier: Apache-2.0
"""Every method of every hop, with anything in it.

Does:  sends spoiled, mangled, random and undecodable messages with odd metadata to registry, manager, forwarder and
       endpoint, in process and over gRPC; no answer may be a defect's (INTERNAL, UNKNOWN), every error of ours names
       hop, element and remedy, and after the Closes of a client nothing is held anywhere. `NSM_FUZZ=100` takes longer.
Place: whole hops, as the recipes make them.
State: a mesh per example, which takes a row of calls.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsm_sdk import api
from nsm_sdk.api import Method, Request
from nsm_sdk.errors import NsmError, Status
from nsm_sdk.testing import settled
from tests.untrusted.hops import HOPS, Mesh, mesh, methods
from tests.untrusted.sizes import EXAMPLES
from tests.untrusted.strategies import EXPIRES, TOKEN, mangled, messages, metadata, spoiled, wire_bytes

DEFECTS = (Status.INTERNAL, Status.UNKNOWN, Status.DATA_LOSS)
PATIENT = (Status.DEADLINE_EXCEEDED, Status.CANCELLED)


@dataclass(frozen=True)
class Throw:
    """One call."""

    hop: str
    method: Method[Any, Any]
    raw: bytes
    metadata: dict[str, str] | None
    over: str


@dataclass(frozen=True)
class _Good:
    """Good messages, before there is a mesh."""

    hop: str
    method: Method[Any, Any]

    def __call__(self) -> Any:
        return _NOWHERE.good(self.hop, self.method)


_NOWHERE = Mesh(running={}, channels={}, token="", until="", pool=None, datapath=None, netlink=None)  # type: ignore[arg-type]

_METHODS = [
    (hop, method)
    for hop in HOPS
    for method in methods(hop)
    # Requests have the most to get through.
    for _ in range(4 if method is api.NETWORK_SERVICE_REQUEST else 1)
]


@st.composite
def throws(draw: st.DrawFn) -> Throw:
    hop, method = draw(st.sampled_from(_METHODS))
    good = _Good(hop, method)
    message = st.one_of(spoiled(good), spoiled(good), spoiled(good), mangled(good), messages(method.request))
    raw = draw(st.one_of(*[message.map(lambda one: one.SerializeToString())] * 6, wire_bytes))
    odd = draw(st.one_of(st.none(), st.none(), st.none(), metadata("", "")))
    return Throw(hop, method, raw, odd, draw(st.sampled_from(("grpc", "inproc"))))


async def thrown(hops: Mesh, throw: Throw) -> None:
    """Do it, and see that the answer is none of a defect."""
    good = {TOKEN: hops.token, EXPIRES: hops.until}
    metadata = good if throw.metadata is None else throw.metadata
    status, error = await hops.throw(throw.hop, throw.method, throw.raw, metadata, over=throw.over)
    assert status not in DEFECTS, (throw, error)
    if isinstance(error, NsmError) and status not in PATIENT:
        assert error.hop, (throw, error)
        assert error.element, (throw, error)
        assert error.hint, (throw, error)


async def closed(hops: Mesh, done: list[Throw]) -> None:
    """Close what may have been opened, and see that it is gone."""
    good = {TOKEN: hops.token, EXPIRES: hops.until}
    for throw in done:
        if throw.method is api.NETWORK_SERVICE_REQUEST:
            try:
                conn = Request.FromString(throw.raw).connection
            except Exception:
                continue
            raw = conn.SerializeToString()
            await hops.throw(throw.hop, api.NETWORK_SERVICE_CLOSE, raw, good, over="inproc")
    for _ in range(300):
        await settled()
        if not hops.held():
            return
        await asyncio.sleep(0.02)
    assert hops.held() == {}


class _Defects(logging.Handler):
    """Log records of what nobody has foreseen."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(f"{record.name}: {record.getMessage()}\n{record.exc_text or ''}")


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.lists(throws(), min_size=20, max_size=40))
def test_whatever_is_sent_to_any_hop(row: list[Throw]) -> None:
    defects = _Defects()

    async def main() -> None:
        async with mesh() as hops:
            for throw in row:
                await thrown(hops, throw)
            await closed(hops, row)
            # The mesh works as before.
            raw = hops.request().SerializeToString()
            good = {TOKEN: hops.token, EXPIRES: hops.until}
            for method in (api.NETWORK_SERVICE_REQUEST, api.NETWORK_SERVICE_CLOSE):
                sent = raw if method is api.NETWORK_SERVICE_REQUEST else hops.request().connection.SerializeToString()
                status, error = await hops.throw("nsmgr", method, sent, good, over="grpc")
                assert status in (Status.OK, Status.UNAVAILABLE, Status.FAILED_PRECONDITION), error
            await closed(hops, [])

    logging.getLogger("nsm_sdk").addHandler(defects)
    try:
        asyncio.run(main())
    finally:
        logging.getLogger("nsm_sdk").removeHandler(defects)
    assert defects.found == []
