# SPDX-License-Identifier: Apache-2.0
"""Tokens and keys stay where they belong: in paths and metadata.

Does:  runs whole scenarios, good and bad, with tokens that can be recognised, everything logged; then looks through all
       log records, errors, trailing metadata, and the repr of every object of ours that is alive. The same with
       programs: everything that they print, and what their admin sockets tell.
Place: all hops.
State: a mesh per test.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import traceback
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from google.protobuf.message import Message

from nsm_sdk import api
from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Call, Element, Next
from nsm_sdk.elements import Heard, News
from nsm_sdk.errors import InvalidRequest, NsmError
from nsm_sdk.mechanisms import Joint
from nsm_sdk.registry import AuthPath
from nsm_sdk.security import Svid, TokenGenerator
from tests.programs.processes import Mesh as Programs
from tests.security.certificates import issue
from tests.untrusted.hops import HOPS, Mesh, mesh, methods
from tests.untrusted.strategies import EXPIRES, TOKEN

SECRET = "S3KRET-signature"


class Marked(TokenGenerator):
    """Tokens whose signature can be recognised; nobody verifies it here."""

    def token(self, peer: str = "", *, peer_not_after: float = math.inf) -> tuple[str, float]:
        token, expires = super().token(peer, peer_not_after=peer_not_after)
        return f"{token.rpartition('.')[0]}.{SECRET}", expires


class Parks(Element):
    """Keeps requests of one service waiting, and fails those of another in a way that nobody has foreseen."""

    def __init__(self) -> None:
        self.parked = anyio.Event()
        self.leave = anyio.Event()

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        if request.connection.labels.get("do") == "park":
            self.parked.set()
            await self.leave.wait()
        if request.connection.labels.get("do") == "fail":
            token = request.connection.path.path_segments[0].token
            raise InvalidRequest(f"a careless element tells of {token}", hint=f"and again: {token}")
        return await next.request(call, request)


@pytest.fixture
def records() -> Iterator[list[str]]:
    """Every log record of any logger, as it would be written, with its arguments and tracebacks."""
    said: list[str] = []

    class Keeps(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(f"{record.name}: {record.getMessage()} {record.args!r}")
            said.append(record.exc_text or "")

    root, handler = logging.getLogger(), Keeps()
    loggers = [root, logging.getLogger("nsm_sdk")]
    before = [logger.level for logger in loggers]
    root.addHandler(handler)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    yield said
    for logger, level in zip(loggers, before, strict=True):
        logger.setLevel(level)
    root.removeHandler(handler)


def told(error: Any) -> str:
    """All that an error says anywhere."""
    parts = [str(error), repr(error), *getattr(error, "__notes__", ())]
    if isinstance(error, NsmError):
        parts += [error.message, error.hint, error.hop, error.element, *error.trail]
        parts += traceback.format_exception(error)
    elif error:
        parts += [
            error.details(),
            repr(error.trailing_metadata()),
            repr(error.initial_metadata()),
            error.debug_error_string(),
        ]
    return "\n".join(map(str, parts))


def reprs() -> Iterator[str]:
    """Of every object of ours that is alive. Messages are shown by protobuf; `without_tokens` is for those."""
    for thing in gc.get_objects():
        kind = type(thing)
        if str(kind.__module__).startswith("nsm_sdk.") and not isinstance(thing, (Message, type)):
            yield f"{kind.__module__}.{kind.__qualname__}: {thing!r}"


def leaks(texts: Any) -> list[str]:
    return [text[:300] for text in texts if SECRET in text]


async def _everything_once(hops: Mesh) -> list[str]:
    """Good and bad calls of every method of every hop, over both transports; all that errors say."""
    said: list[str] = []
    good = {TOKEN: hops.token, EXPIRES: hops.until}
    path = AuthPath(0, (hops.token,)).dumps()
    for over in ("inproc", "grpc"):
        for hop in HOPS:
            for method in methods(hop):
                message = hops.good(hop, method)
                spoiled = type(message)()
                spoiled.CopyFrom(message)
                if isinstance(message, Request):
                    spoiled.connection.path.index = 7
                elif hasattr(message, "url"):
                    spoiled.url = "no address"
                for raw, metadata in (
                    (message.SerializeToString(), good),
                    (message.SerializeToString(), {**good, "path": path}),
                    (message.SerializeToString(), {**good, "path": f"{path}{hops.token}"}),
                    (message.SerializeToString(), {**good, EXPIRES: hops.token}),
                    (message.SerializeToString(), {TOKEN: f"{hops.token},{hops.token}", EXPIRES: hops.until}),
                    (message.SerializeToString(), {TOKEN: f"{hops.token}x.y.z", EXPIRES: hops.until}),
                    (message.SerializeToString(), {EXPIRES: hops.until}),
                    (spoiled.SerializeToString(), good),
                    (b"\xff" + hops.token.encode(), good),
                ):
                    _, error = await hops.throw(hop, method, raw, metadata, over=over)
                    said.append(told(error))
    return said


async def test_no_token_is_logged_told_or_shown(records: list[str]) -> None:
    parks = Parks()
    async with mesh(Marked, parks) as hops:
        assert SECRET in hops.token
        said = await _everything_once(hops)
        good = {TOKEN: hops.token, EXPIRES: hops.until}
        for over in ("inproc", "grpc"):
            request = hops.request("nsmgr", 1)
            request.connection.labels["do"] = "fail"
            _, error = await hops.throw(
                "nsmgr", api.NETWORK_SERVICE_REQUEST, request.SerializeToString(), good, over=over
            )
            assert "careless element" in told(error)
            said.append(told(error))
        request = hops.request("nsmgr", 2)
        request.connection.labels["do"] = "park"
        raw = request.SerializeToString()
        parked = asyncio.ensure_future(hops.throw("nsmgr", api.NETWORK_SERVICE_REQUEST, raw, good, over="grpc"))
        await parks.parked.wait()
        shown = list(reprs())
        assert any(text.startswith("nsm_sdk.core.call.Call: ") for text in shown)
        parks.leave.set()
        await parked
        shown += reprs()
        shown += [chain.tree() + chain.mermaid() for running in hops.running.values() for chain in running.chains]
        await hops.throw("nsmgr", api.NETWORK_SERVICE_CLOSE, request.connection.SerializeToString(), good, over="grpc")
    assert len(records) > 100
    assert leaks(said) == []
    # An error that somebody's own element raises is what it is, until a transport carries it.
    assert [text for text in leaks(shown) if "careless" not in text] == []
    assert [text for text in leaks(records) if "careless" not in text] == []


def test_values_that_hold_tokens_do_not_show_them() -> None:
    conn = Connection(id="x")
    conn.path.path_segments.add(name="nsc", id="x", token=f"eyJhbGciOiJI.eyJzdWIi.{SECRET}")
    values: list[object] = [
        AuthPath(0, (f"eyJhbGciOiJI.eyJzdWIi.{SECRET}",)),
        Heard(News.EVENT, conn),
        Joint(connection=conn, near=conn.mechanism, far=conn.mechanism),
        api.Snapshot.of(conn),
        api.describe(conn),
        api.without_tokens(conn),
    ]
    assert leaks(map(repr, values)) == []


def test_no_key_is_shown() -> None:
    certificate, pem = issue("spiffe://test/nsm")
    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    number = key.private_numbers().private_value
    svid = Svid(certificate, pem)
    generator = TokenGenerator(svid)
    token, _ = generator.token()
    shown = f"{svid!r} {svid} {svid.signer()!r} {generator!r} {vars(generator).keys()}"
    for secret in (str(number), f"{number:x}", pem.decode().splitlines()[1], token):
        assert secret not in shown
    with pytest.raises(InvalidRequest) as caught:
        Svid(certificate, pem[:-60])
    assert pem.decode().splitlines()[1] not in "".join(traceback.format_exception(caught.value))


async def test_programs_print_no_tokens() -> None:
    async with (
        Programs(NSM_LOG_LEVEL="TRACE") as programs,
        programs.connected(admin_socket=f"{programs.folder}/admin") as (_, _, _, nse, nsc),
    ):
        stranger = await programs.start(
            "nsc", network_services="kernel://nobody/nsm-2", name="nsc-2", request_timeout="1s"
        )
        await stranger.event("error")
        await nse.stop()
        told = ""
        for question in ("connections", "registrations", f"journal {nsc.events('connected')[0]['id']}"):
            reader, writer = await asyncio.open_unix_connection(f"{programs.folder}/admin")
            writer.write(f"{question}\n".encode())
            told += (await reader.read()).decode()
            writer.close()
            await writer.wait_closed()
        await stranger.stop()
        await nsc.stop()
        for process in programs.processes:
            told += process.stderr + "".join(map(str, process.lines))
        assert len(told) > 1000
        assert "eyJ" not in told
