# SPDX-License-Identifier: Apache-2.0
"""How settings are written.

Does:  reads the texts of settings: durations, booleans, lists, labels, addresses, groups. Each codec knows in words
       what it expects, so that a refusal can say so.
Place: the tables of settings in `nsm_sdk.cli.roles`.
State: none.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from nsm_sdk.api import ServiceUrl, Target, url_groups
from nsm_sdk.api.addresses import MAX_SOCKET_PATH
from nsm_sdk.errors import InvalidRequest

T = TypeVar("T")

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_LONGEST = 2**63 / 1e9
"""Seconds; upstream's durations are 64-bit nanoseconds."""


class Refused(ValueError):
    """The text is not what the codec expects; the message may say more than that, or be empty."""


@dataclass(frozen=True, slots=True)
class Codec(Generic[T]):
    """Reads one kind of value."""

    read: Callable[[str], T]
    """Raises `Refused`, or `InvalidRequest`."""
    expected: str
    """What a good value is, as the end of "expected ..."."""

    def __call__(self, text: str) -> T:
        return self.read(text.strip())


def duration_seconds(text: str) -> float:
    """Seconds of a duration as Go writes it: `200ms`, `1h30m`, `0`. Refused if it is none, or negative."""
    if text == "0":
        return 0.0
    at, seconds = 0, 0.0
    while at < len(text):
        found = _PART.match(text, at)
        if found is None:
            raise Refused
        seconds += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    if not text or seconds >= _LONGEST:
        raise Refused
    return seconds


def format_duration(seconds: float) -> str:
    """A duration as Go would take it, to the nanosecond."""
    left = round(seconds * 1e9)
    parts = []
    for unit, size in (("h", 3600 * 10**9), ("m", 60 * 10**9), ("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def _positive(text: str) -> float:
    seconds = duration_seconds(text)
    if not seconds:
        raise Refused
    return seconds


def _boolean(text: str) -> bool:
    if text in ("true", "TRUE", "True", "t", "T", "1"):
        return True
    if text in ("false", "FALSE", "False", "f", "F", "0"):
        return False
    raise Refused


def items(text: str) -> tuple[str, ...]:
    """The items of a comma separated list; no text, no items. Refused for an empty item."""
    if not text:
        return ()
    found = tuple(item.strip() for item in text.split(","))
    if not all(found):
        raise Refused("it has an empty item")
    return found


def _labels(text: str) -> Mapping[str, str]:
    labels: dict[str, str] = {}
    for item in items(text):
        key, colon, value = item.partition(":")
        if not colon or not key.strip():
            raise Refused(f"{item[:64]!r} is not key:value")
        labels[key.strip()] = value.strip()
    return labels


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused("it is not valid Unicode") from None
    return text


def _name(text: str) -> str:
    if not _text(text) or not text.isprintable():
        raise Refused
    return text


def _address(text: str) -> str:
    target = Target.parse(text)
    if target.network == "inproc":
        raise Refused("no other process can call that")
    if target.network == "tcp" and not target.port:
        raise Refused("nobody can be called at port 0")
    return target.url


def _listen(text: str) -> tuple[Target, ...]:
    targets = tuple(Target.parse(item) for item in items(text))
    if any(target.network == "inproc" for target in targets):
        raise Refused("no other process can call that")
    if len(set(targets)) != len(targets) and any(target.port or target.network != "tcp" for target in targets):
        raise Refused("one address stands there twice")
    return targets


def _some_listen(text: str) -> tuple[Target, ...]:
    if not text:
        raise Refused
    return _listen(text)


def _service_names(text: str) -> tuple[str, ...]:
    found = items(text)
    if not found:
        raise Refused
    for item in found:
        try:
            ServiceUrl(mechanism_type="KERNEL", service=item)
        except InvalidRequest as error:
            raise Refused(f"{item[:64]!r}: {error.message}") from None
    return tuple(dict.fromkeys(found))


def _payload(text: str) -> str:
    if text.upper() not in ("ETHERNET", "IP"):
        raise Refused
    return text.upper()


def _prefixes(text: str) -> tuple[tuple[str, ...], ...]:
    # Only endpoints have prefixes, so only they pay for this import.
    from nsm_sdk.ipam import ipam_chain, parse_groups

    groups = tuple(tuple(map(str, group)) for group in parse_groups(text))
    ipam_chain(groups)
    return groups


def _tunnel_ip(text: str) -> str:
    if not text:
        return ""
    try:
        return str(ipaddress.ip_interface(text).ip)
    except ValueError:
        raise Refused from None


def _services(text: str) -> tuple[str, ...]:
    found = items(text)
    if not found:
        raise Refused("it is empty")
    for item in found:
        # An item may leave its mechanism to NSM_MECHANISM.
        url = ServiceUrl.parse(item if "://" in item else f"kernel://{item}")
        if url.mechanism_type != "KERNEL":
            raise Refused(f"{url.mechanism_type.lower()}: this client has the kernel mechanism only")
    return found


def _groups(text: str) -> tuple[tuple[ServiceUrl, ...], ...]:
    return tuple(map(tuple, url_groups(text)))


def _netns(text: str) -> str:
    if not text:
        return ""
    text = text.removeprefix("file://")
    if text.startswith(("/proc/self/", "/proc/thread-self/")):
        raise Refused("only this process itself can open that")
    if text.startswith("/"):
        return f"file://{text}"
    if "/" in text or text in (".", "..") or not text.isprintable():
        raise Refused
    return f"file:///run/netns/{text}"


def _folder(text: str) -> str:
    if text and (not text.startswith("/") or "\0" in text):
        raise Refused
    return text


def _socket(text: str) -> str:
    path = _folder(text)
    if path.endswith("/"):
        raise Refused
    if path:
        Target("unix", path)
    return path


def _probe(text: str) -> str:
    kind, colon, port = text.partition(":")
    if kind == "tcp":
        if not (colon and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
            raise Refused
    elif text not in ("auto", "icmp", "arp", "carrier", "none"):
        raise Refused
    return text


def _identity(text: str) -> str:
    if text in ("files", "spiffe"):
        raise Refused("this version cannot do that yet")
    if text != "insecure":
        raise Refused
    return text


def _subject(text: str) -> str:
    if text:
        from nsm_sdk.security import check_spiffe_id

        check_spiffe_id(text)
    return text


def _level(text: str) -> str:
    if text.upper() not in LEVELS:
        raise Refused
    return text.upper()


LEVELS = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40, "FATAL": 50, "PANIC": 50}
"""Upstream's names of log levels, and Python's numbers for them."""


def choice(*options: str) -> Codec[str]:
    """One of `options`, in any case."""

    def read(text: str) -> str:
        if text.lower() not in options:
            raise Refused
        return text.lower()

    return Codec(read, _either(options))


def _either(options: Iterable[str]) -> str:
    *most, last = options
    return f"{', '.join(most)} or {last}" if most else last


def optional(codec: Codec[T]) -> Codec[T | None]:
    """The same, or nothing."""
    return Codec(lambda text: codec(text) if text else None, f"{codec.expected}, or nothing")


DURATION: Codec[float] = Codec(duration_seconds, "a duration such as 200ms, 15s or 1h30m")
POSITIVE: Codec[float] = Codec(_positive, "a duration above 0 such as 200ms, 15s or 1h30m")
BOOLEAN: Codec[bool] = Codec(_boolean, "true or false")
NAME: Codec[str] = Codec(_name, "a name")
TEXT: Codec[str] = Codec(_text, "a text")
LABELS: Codec[Mapping[str, str]] = Codec(_labels, "labels such as key:value,key:value")
ADDRESS: Codec[str] = Codec(_address, "an address such as unix:///run/nsm.sock or tcp://host:5001")
LISTEN: Codec[tuple[Target, ...]] = Codec(_some_listen, "addresses such as unix:///run/nsm.sock or tcp://127.0.0.1:0")
MAYBE_LISTEN: Codec[tuple[Target, ...]] = Codec(_listen, LISTEN.expected)
SERVICE_NAMES: Codec[tuple[str, ...]] = Codec(_service_names, "services such as my-service,other@domain")
SERVICES: Codec[tuple[str, ...]] = Codec(_services, "service URLs such as kernel://my-service@domain/nsm-1?label=value")
GROUPS: Codec[tuple[tuple[ServiceUrl, ...], ...]] = Codec(
    _groups, "groups of service URLs such as [kernel://a,kernel://b]"
)
PREFIXES: Codec[tuple[tuple[str, ...], ...]] = Codec(_prefixes, "prefixes such as [172.16.0.0/16,fd00::/64],10.0.0.0/8")
PAYLOAD: Codec[str] = Codec(_payload, "ETHERNET or IP")
TUNNEL_IP: Codec[str] = Codec(_tunnel_ip, "an IP address")
NETNS: Codec[str] = Codec(_netns, "a network namespace's name, or an absolute path such as /run/netns/blue")
FOLDER: Codec[str] = Codec(_folder, "an absolute path")
SOCKET: Codec[str] = Codec(_socket, f"the absolute path of a unix socket, at most {MAX_SOCKET_PATH} bytes")
PROBE: Codec[str] = Codec(_probe, "auto, icmp, arp, carrier, tcp:PORT or none")
IDENTITY: Codec[str] = Codec(_identity, "insecure")
SUBJECT: Codec[str] = Codec(_subject, "a SPIFFE id such as spiffe://insecure.test/nsc/blue")
LEVEL: Codec[str] = Codec(_level, _either(LEVELS))
