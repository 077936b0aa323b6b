# SPDX-License-Identifier: Apache-2.0
"""Addresses of peers.

Does:  parses `unix:///path`, `tcp://host:port` and `inproc://name`; converts between URLs, gRPC targets and socket
       addresses as the Go programs do.
Place: both ends of every adapter.
State: none.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum

from nsm_sdk.errors import InvalidRequest

UNIX_PATH_LIMIT = 107
"""Bytes that fit into the address of a Unix socket on Linux, its end mark taken off."""

_HINT = "use unix:///path, tcp://host:port or inproc://name"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_HOST = re.compile(r"[A-Za-z0-9._-]*")


class Scheme(StrEnum):
    """What carries a URL."""

    UNIX = "unix"
    TCP = "tcp"
    INPROC = "inproc"


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed URL."""

    scheme: Scheme
    path: str = ""
    """Socket file, or the name in this process."""
    host: str = ""
    """Name or numeric address without brackets; empty for every address of the machine."""
    port: int = 0

    @property
    def url(self) -> str:
        """The canonical spelling."""
        match self.scheme:
            case Scheme.UNIX:
                return f"unix://{self.path}" if self.path.startswith("/") else f"unix:{self.path}"
            case Scheme.TCP:
                return f"tcp://{_bracketed(self.host)}:{self.port}"
            case Scheme.INPROC:
                return f"inproc://{self.path}"

    @property
    def target(self) -> str:
        """What a gRPC channel dials. A host that is left out is this machine."""
        if self.scheme is Scheme.TCP:
            return f"{_bracketed(self.host) or 'localhost'}:{self.port}"
        return f"unix:{self.path}"


def parse(url: str) -> Address:
    """Parse a URL; `InvalidRequest` tells what is wrong with it."""
    if not url:
        raise InvalidRequest("the URL is empty", hint=_HINT)
    shown = repr(url if len(url) <= 200 else url[:200] + "...")
    found = _SCHEME.fullmatch(url)
    if found is None or not url.isprintable():
        raise InvalidRequest(f"{shown} is not a URL", hint=_HINT)
    scheme, rest = found[1].lower(), found[2]
    match scheme:
        case "unix":
            return _unix(rest, shown)
        case "tcp":
            return _tcp(rest, shown)
        case "inproc":
            name = rest.removeprefix("//")
            if not name or not rest.startswith("//"):
                raise InvalidRequest(f"{shown} has no name", hint="write inproc://name")
            return Address(Scheme.INPROC, path=name)
        case "inode":
            raise InvalidRequest(
                f"{shown} names an open file of the peer, and this transport cannot pass files",
                hint="let the peer announce a unix:// path that both sides see, or a tcp:// address",
            )
        case _:
            raise InvalidRequest(f"{shown} has an unknown scheme {scheme[:40]!r}", hint=_HINT)


def _unix(rest: str, shown: str) -> Address:
    path = rest
    if rest.startswith("//"):
        path = rest[2:]
        if not path.startswith("/"):
            raise InvalidRequest(f"{shown} has no absolute path", hint="write three slashes: unix:///path")
    if not path or path.endswith("/"):
        raise InvalidRequest(f"{shown} names no socket file", hint="write unix:///path/of/socket")
    size = len(path.encode("utf-8", "surrogateescape"))
    if size > UNIX_PATH_LIMIT:
        raise InvalidRequest(
            f"the path of {shown} has {size} bytes; a Unix socket takes at most {UNIX_PATH_LIMIT}",
            hint="choose a shorter directory, for example below /run",
        )
    return Address(Scheme.UNIX, path=path)


def _tcp(rest: str, shown: str) -> Address:
    where = rest.removeprefix("//").removesuffix("/")
    host, colon, port = where.rpartition(":")
    if not rest.startswith("//") or not colon:
        raise InvalidRequest(f"{shown} has no port", hint="write tcp://host:port")
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise InvalidRequest(f"{shown} has no valid port: {port[:40]!r}", hint="a port is a number from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise InvalidRequest(f"{shown} has no valid IPv6 address", hint="write tcp://[address]:port") from None
    elif not _HOST.fullmatch(host):
        raise InvalidRequest(
            f"{shown} has no valid host: {host[:80]!r}", hint="an IPv6 address stands in brackets: tcp://[::1]:5000"
        )
    return Address(Scheme.TCP, host=host, port=int(port))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def target_of(url: str) -> str:
    """The gRPC target that Go programs make of a URL: `host:port` for tcp, everything else as it stands."""
    scheme, colon, rest = url.partition("://")
    return rest.partition("/")[0] if colon and scheme.lower() == "tcp" else url


def url_of_target(target: str) -> str:
    """The URL of a gRPC target: `unix:path` or `host:port`."""
    if target.startswith("unix:"):
        path = target.removeprefix("unix:")
        return f"unix://{'/' + path.lstrip('/') if path.startswith('/') else path}"
    return f"tcp://{target}" if target else "tcp:"


def url_of_socket(network: str, address: str) -> str:
    """The URL of a socket's own address; a listener on every address of the machine becomes `tcp://:port`."""
    if network == "unix":
        return f"unix://{address}"
    host, _, port = address.rpartition(":")
    return f"tcp://:{port}" if host in ("0.0.0.0", "[::]", "") else f"tcp://{address}"
