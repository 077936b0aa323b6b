# SPDX-License-Identifier: Apache-2.0
"""A wire recording, taken apart.

Does:  turns a recording into exchanges (one for each gRPC call, with decoded messages, metadata and the numbers of its
       events), and tells what a registry held at any point of it.
Place: read by the stage on which one hop of the recording is ours.
State: none; a script is made once and read only.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from nsm_sdk.api import METHODS, Method, NetworkService, NetworkServiceEndpoint
from nsm_sdk.api.tokens import EXPIRES_KEY
from tests.fixtures import load

_UNITS = {"n": 1e-9, "u": 1e-6, "m": 1e-3, "S": 1.0, "M": 60.0, "H": 3600.0}
_TOKEN_LIFE = 3600.0
_PLUMBING = frozenset({"content-type", "user-agent", "te", "grpc-accept-encoding", "grpc-timeout"})
TRACING = "grpctracing"
"""Sent by hops that trace; says nothing."""


@dataclass(slots=True, kw_only=True)
class Exchange:
    """One gRPC call."""

    number: int
    client: str
    server: str
    method: Method[Any, Any]
    first: int
    last: int
    outcome: str
    timeout: float | None
    metadata: dict[str, str]
    request: Any = None
    answers: list[tuple[int, Any]] = field(default_factory=list)
    """(number of the event, message)"""
    headers: dict[str, str] = field(default_factory=dict)
    status: int | None = None
    """gRPC status; None for a call that was reset, or ran on."""
    text: str = ""

    @property
    def stream(self) -> bool:
        return self.method.server_streaming

    def __str__(self) -> str:
        return f"call {self.number}, {self.client} to {self.server}, {self.method.path}"


class Script:
    """Everything that a recording says."""

    def __init__(self, name: str) -> None:
        self.name = name
        recording = load(name)
        self.addresses: dict[str, str] = {hop["name"]: f"tcp://{hop['listens_on']}" for hop in recording["hops"]}
        """URL of each hop."""
        self.generated = frozenset(recording["volatile"].get("uuid", ()))
        """Ids that hops have made up."""
        self.exchanges = {call["call"]: _exchange(call) for call in recording["calls"]}
        self.steps: dict[int, str] = {}
        self.results: list[dict[str, Any]] = []
        """What applications got, as recorded."""
        self.last = recording["events"][-1]["n"]
        began: float | None = None
        for event in recording["events"]:
            if event["kind"] == "step":
                self.steps[event["n"]] = event["text"]
            elif event["kind"] == "result":
                self.results.append(event)
            exchange = self.exchanges.get(event.get("call"))
            if exchange is not None:
                _note(exchange, event)
                if began is None and EXPIRES_KEY in exchange.metadata:
                    made = datetime.fromisoformat(exchange.metadata[EXPIRES_KEY]).timestamp() - _TOKEN_LIFE
                    began = made - event["t_ms"] / 1000
        self.began = began or 0.0
        """Seconds since 1970 when the recording began."""

    def calls_of(self, hop: str) -> list[Exchange]:
        """What `hop` asked of others."""
        return [exchange for exchange in self.exchanges.values() if exchange.client == hop]

    def calls_to(self, hop: str) -> list[Exchange]:
        """What others asked of `hop`."""
        return [exchange for exchange in self.exchanges.values() if exchange.server == hop]

    def servers_of(self, hop: str) -> list[str]:
        """The hops that `hop` called, each once."""
        return list(dict.fromkeys(exchange.server for exchange in self.calls_of(hop)))

    def registered(self, hop: str) -> Iterator[tuple[int, Any, bool]]:
        """How what `hop` tells those who look for services and endpoints changed: (event, entry, gone).

        A manager knows what is in the registry, but the own addresses of what has registered with it. What comes from
        elsewhere is known from the time when it was first found.
        """
        domain = hop.rpartition("/")[0]
        registry = f"{domain}/registry" if domain else "registry"
        own: dict[str, str] = {}
        for exchange in self.exchanges.values():
            if exchange.server == hop and exchange.method.name == "Register" and exchange.status == 0:
                entry = exchange.answers[0][1]
                if isinstance(entry, NetworkServiceEndpoint):
                    own[entry.name] = entry.url
        for exchange in sorted(self.exchanges.values(), key=lambda one: one.last):
            if exchange.server == hop and exchange.method.name == "Find":
                for at, found in exchange.answers:
                    entry = getattr(found, "network_service", None) or getattr(found, "network_service_endpoint", None)
                    if entry is not None and "@" in entry.name and not found.deleted:
                        yield at, entry, False
                continue
            if exchange.server != registry or exchange.status != 0:
                continue
            if exchange.method.name == "Register":
                entry = type(exchange.request).FromString(exchange.answers[0][1].SerializeToString())
            elif exchange.method.name == "Unregister":
                entry = type(exchange.request).FromString(exchange.request.SerializeToString())
            else:
                continue
            if entry.name in own and isinstance(entry, NetworkServiceEndpoint):
                entry.url = own[entry.name]
            yield exchange.last, entry, exchange.method.name == "Unregister"


def is_service(entry: NetworkService | NetworkServiceEndpoint) -> bool:
    """Whether an entry is one of the service registry."""
    return isinstance(entry, NetworkService)


def custom(headers: list[tuple[str, str]]) -> dict[str, str]:
    """The metadata among all request headers."""
    return {key: value for key, value in headers if not key.startswith(":") and key not in _PLUMBING}


def _exchange(call: dict[str, Any]) -> Exchange:
    return Exchange(
        number=call["call"],
        client=call["client"],
        server=call["server"],
        method=METHODS[call["method"]],
        first=call["first_event"],
        last=call["last_event"],
        outcome=call["outcome"],
        timeout=None,
        metadata={},
        status=call["status"]["code"] if "status" in call else None,
        text=call["status"]["message"] if "status" in call else "",
    )


def _note(exchange: Exchange, event: dict[str, Any]) -> None:
    kind = event["kind"]
    if kind == "request-headers":
        headers = [(key, value) for key, value in event["headers"]]
        timeout = dict(headers).get("grpc-timeout")
        exchange.timeout = float(timeout[:-1]) * _UNITS[timeout[-1]] if timeout else None
        exchange.metadata = custom(headers)
    elif kind == "request-message":
        exchange.request = exchange.method.request.FromString(base64.b64decode(event["bytes"]))
    elif kind == "response-message":
        message = exchange.method.response.FromString(base64.b64decode(event["bytes"]))
        exchange.answers.append((event["n"], message))
    elif kind == "response-headers":
        exchange.headers = {key: value for key, value in event["headers"] if not key.startswith(":")}
