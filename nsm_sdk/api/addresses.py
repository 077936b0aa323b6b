# SPDX-License-Identifier: Apache-2.0
"""Addresses of hops: `unix:///run/nsm.sock`, `tcp://host:port`, `inproc://name`.

Does:  reads and writes them as URLs, as gRPC target texts, and as the (network, address) pairs of sockets.
Place: transports, and whoever reads an address from a setting or from the registry.
State: immutable values.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import quote, unquote

from nsm_sdk.errors import InvalidRequest

EXAMPLE: Final = "write it like unix:///run/nsm.sock, tcp://host:port or inproc://name"

MAX_SOCKET_PATH: Final = 107
"""Longest path of a unix socket, in bytes."""

SHORTER: Final = f"use a path of at most {MAX_SOCKET_PATH} bytes, for example below /run or /tmp"
_SOCKET_LIMIT = f"but a unix socket path at most {MAX_SOCKET_PATH}"

_TCP = re.compile(r"(\[[^\[\]/@\s]+\]|[^\[\]/@:\s]*):([0-9]{1,5})")
_NAME = re.compile(r"[^\s/?#\x00]+")
_ANY_HOST = ("0.0.0.0", "::")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a hop listens. Raises InvalidRequest for an address that cannot be."""

    network: Literal["unix", "tcp", "inproc"]
    address: str
    """unix: the path, or "@name" for an abstract socket. tcp: "host:port", IPv6 in brackets, the host empty for "all
    addresses". inproc: the name."""

    def __post_init__(self) -> None:
        problem = _problem(self.network, self.address)
        if problem:
            hint = SHORTER if problem.endswith(_SOCKET_LIMIT) else EXAMPLE
            raise InvalidRequest(f"address {self.network}:{self.address[:256]!r} {problem}", hint=hint)

    @classmethod
    def parse(cls, url: str) -> Target:
        """Reads a URL. `unix:/path` and `unix:relative` are understood too."""
        scheme, colon, rest = url.partition(":")
        scheme = scheme.lower()
        slashes = rest.startswith("//")
        if colon and scheme == "unix":
            return cls("unix", _unescape(rest[2:] if slashes else rest, url))
        if slashes and scheme == "tcp":
            return cls("tcp", rest[2:].removesuffix("/"))
        if slashes and scheme == "inproc":
            return cls("inproc", _unescape(rest[2:], url))
        raise InvalidRequest(f"address {url[:256]!r} is not understood", hint=EXAMPLE)

    @classmethod
    def from_socket(cls, network: str, address: str) -> Target:
        """Of what a listener says it listens on; "0.0.0.0" and "[::]" become the empty host."""
        if network == "tcp":
            host, _, port = address.rpartition(":")
            if host.removeprefix("[").removesuffix("]") in _ANY_HOST:
                host = ""
            return cls("tcp", f"{host}:{port}")
        if network == "unix":
            return cls("unix", address)
        raise InvalidRequest(f"network {network[:64]!r} is not understood", hint="use tcp or unix")

    @classmethod
    def from_grpc(cls, target: str) -> Target:
        """Of a gRPC target text, or of a URL."""
        if target.startswith("unix-abstract:"):
            return cls("unix", "@" + target.removeprefix("unix-abstract:"))
        if target.startswith("dns:"):
            # "dns:host:port" or "dns://authority/host:port"
            return cls("tcp", target.removeprefix("dns:").rpartition("/")[2])
        if target.startswith(("unix:", "tcp://", "inproc://")):
            return cls.parse(target)
        return cls("tcp", target)

    @property
    def url(self) -> str:
        """The URL: what stands in settings and in the registry."""
        if self.network == "tcp":
            return f"tcp://{self.address}"
        return f"{self.network}://{quote(self.address, safe='/@:,+=~!$&()*;' + chr(39))}"

    @property
    def grpc(self) -> str:
        """The text by which gRPC dials it. InvalidRequest for inproc, which gRPC does not carry."""
        if self.network == "inproc":
            raise InvalidRequest(f"{self.url} cannot be dialled by gRPC", hint="use the in-process transport")
        if self.network == "tcp":
            return self.address
        if self.address.startswith("@"):
            return f"unix-abstract:{self.address[1:]}"
        return f"unix://{self.address}" if self.address.startswith("/") else f"unix:{self.address}"

    @property
    def host(self) -> str:
        """tcp: the host without brackets, empty for "all addresses". Otherwise empty."""
        return self.address.rpartition(":")[0].removeprefix("[").removesuffix("]") if self.network == "tcp" else ""

    @property
    def port(self) -> int:
        """tcp: the port; 0 means "any free one" to a listener. Otherwise 0."""
        return int(self.address.rpartition(":")[2]) if self.network == "tcp" else 0

    def __str__(self) -> str:
        return self.url


def _problem(network: str, address: str) -> str:
    """What is wrong with the address; empty if nothing is."""
    if any("\ud800" <= letter <= "\udfff" for letter in address):
        return "is not valid Unicode"
    if network == "tcp":
        found = _TCP.fullmatch(address)
        if found is None or not address.isprintable():
            return "is not host:port"
        return "" if int(found[2]) <= 65535 else "has a port above 65535"
    if network == "inproc":
        return "" if _NAME.fullmatch(address) and address.isprintable() else "is not a name"
    if not address or address == "@":
        return "has no path"
    if "\x00" in address:
        return "contains a zero byte"
    length = len(address.encode())
    return f"has {length} bytes, {_SOCKET_LIMIT}" if length > MAX_SOCKET_PATH else ""


def _unescape(text: str, url: str) -> str:
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest(f"address {url[:256]!r} has escapes that are not UTF-8", hint=EXAMPLE) from None
