# SPDX-License-Identifier: Apache-2.0
"""Service URLs, `kernel://service@domain/nsm-1?label=value`, and names across domains, `service@domain`.

A `ServiceUrl` is an immutable value. What could only go wrong later (no mechanism, no service, a name Linux refuses,
labels that cannot be read) is refused when it is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import quote, unquote, urlencode

from nsm_sdk.api._gen.connection import Mechanism
from nsm_sdk.api._gen.networkservice import NetworkServiceRequest
from nsm_sdk.api.interface import check_interface_name
from nsm_sdk.api.mechanism import LOCAL
from nsm_sdk.errors import InvalidRequest

EXAMPLE = "write it like kernel://my-service@my-domain/nsm-1?label=value"

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_TYPE = re.compile(r"[A-Z][A-Z0-9+.-]*")
_PORT = re.compile(r":[0-9]*$")
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# ASCII that a service name may not have: it would have to be escaped, and upstream's reader takes no escapes in a host
_FORBIDDEN = frozenset('/?#%[]\\<>"^`{|}')


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceUrl:
    """One network service, as an application asks for it. Raises InvalidRequest for parts that cannot be."""

    mechanism_type: str
    """Mechanism in upper case: "KERNEL"."""
    service: str
    """Name of the network service, with "@domain" if it is another domain's."""
    interface: str = ""
    """Name the interface shall have; empty if any will do."""
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Labels of the client, by name."""

    def __post_init__(self) -> None:
        if _TYPE.fullmatch(self.mechanism_type) is None:
            raise InvalidRequest(f"{self.mechanism_type[:64]!r} is no mechanism type", hint="use one like KERNEL")
        _check_service(self.service)
        if self.interface:
            check_interface_name(self.interface)
        for text in (*self.labels, *self.labels.values()):
            _check_text(text, "a label")
        if "" in self.labels:
            raise InvalidRequest("a label has no name", hint=EXAMPLE)
        object.__setattr__(self, "labels", MappingProxyType(dict(self.labels)))

    @classmethod
    def parse(cls, text: str) -> ServiceUrl:
        """Reads a URL. A port, a password and a fragment are dropped; a label given twice is joined by commas."""
        try:
            return cls._parse(text)
        except InvalidRequest as error:
            raise InvalidRequest(f"service URL {text[:256]!r}: {error.message}", hint=error.hint or EXAMPLE) from None

    @classmethod
    def _parse(cls, text: str) -> ServiceUrl:
        found = _SCHEME.fullmatch(_check_text(text, "the URL"))
        if found is None:
            raise InvalidRequest("it does not begin with a mechanism and '://'", hint=EXAMPLE)
        rest, _, query = found[2].partition("#")[0].partition("?")
        authority, _, path = rest.partition("/")
        return cls(
            mechanism_type=found[1].upper(),
            service=_read_service(authority),
            interface=_unescape(path.rpartition("/")[2]),
            labels=_read_labels(query),
        )

    @classmethod
    def of(cls, request: NetworkServiceRequest) -> ServiceUrl:
        """The URL that describes a request: its mechanism (else the first preference), service and labels."""
        conn = request.connection
        mechanism = conn.mechanism
        if not conn.HasField("mechanism") and request.mechanism_preferences:
            mechanism = request.mechanism_preferences[0]
        return cls(
            mechanism_type=mechanism.type.upper(),
            service=conn.network_service,
            interface=mechanism.parameters.get("name") or "",
            labels=dict(conn.labels),
        )

    def mechanism(self) -> Mechanism:
        """A new mechanism preference that asks for what the URL says."""
        parameters = {"name": self.interface} if self.interface else {}
        return Mechanism(cls=LOCAL, type=self.mechanism_type, parameters=parameters)

    def __str__(self) -> str:
        user, at, host = self.service.rpartition("@")
        if ":" in host:
            host = f"[{host}]"
        path = f"/{quote(self.interface, safe='')}" if self.interface else ""
        query = f"?{urlencode(sorted(self.labels.items()))}" if self.labels else ""
        user = quote(user, safe="-._~!$&'()*+,;=@")
        host = quote(host, safe="-._~!$&'()*+,;=:[]")
        return f"{self.mechanism_type.lower()}://{user}{at}{host}{path}{query}"


def _read_service(authority: str) -> str:
    user, at, host = authority.rpartition("@")
    if host.startswith("["):
        host, closed, port = host[1:].partition("]")
        if not closed or (port and _PORT.fullmatch(port) is None):
            raise InvalidRequest("its service has brackets that do not match", hint=EXAMPLE)
    else:
        host = _PORT.sub("", host)
        if ":" in host:
            raise InvalidRequest("its service has a port that is no number", hint=EXAMPLE)
    return f"{_unescape(user.split(':', 1)[0])}{at}{_unescape(host)}"


def _read_labels(query: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in query.split("&"):
        if not pair:
            continue
        if ";" in pair:
            # Upstream drops such a pair without a word, and the client reaches another endpoint than it asked for
            raise InvalidRequest("its labels are separated by ';'", hint="separate labels with '&'")
        name, _, value = (_unescape(part.replace("+", " ")) for part in pair.partition("="))
        labels[name] = f"{labels[name]},{value}" if name in labels else value
    return labels


def _unescape(text: str) -> str:
    if _ESCAPE.search(text):
        raise InvalidRequest("it has a '%' without two hexadecimal digits", hint="write a plain '%' as %25")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise InvalidRequest("its escapes are not UTF-8", hint=EXAMPLE) from None


def _check_service(service: str) -> None:
    target, at, domain = service.partition("@")
    if not target:
        raise InvalidRequest("it names no service", hint=EXAMPLE)
    if at and not domain:
        raise InvalidRequest(f"service {service!r} has an empty domain", hint="leave out the '@', or name the domain")
    bad = next((letter for letter in _check_text(service, "the service") if not _may_name(letter)), "")
    if bad:
        raise InvalidRequest(f"its service contains {bad!r}", hint="use letters, digits, '-', '_' and '.'")


def _may_name(letter: str) -> bool:
    return letter.isprintable() and not letter.isspace() and letter not in _FORBIDDEN


def _check_text(text: str, what: str) -> str:
    """The text, if a message can carry it: protobuf strings are UTF-8, so no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} is not valid Unicode", hint="remove the broken characters") from None
    return text


SEPARATOR = "@"


def is_interdomain(name: str) -> bool:
    """True if the name says a domain, even an empty one."""
    return SEPARATOR in name


def split_domain(name: str) -> tuple[str, str]:
    """(name within the domain, domain); the domain is empty if the name has none. `a@b@c` is `a` of `b@c`."""
    target, _, domain = name.partition(SEPARATOR)
    return target, domain


def join_domain(*parts: str) -> str:
    """The parts joined by "@". A part that has a domain already gets a second one."""
    return SEPARATOR.join(parts)
