# SPDX-License-Identifier: Apache-2.0
"""The kernel mechanism: how a client asks for it, how an endpoint answers, and the NAT rules it may carry.

Does:  fills in name and namespace on both sides, and renders the iptables rules of a connection.
Place: the kernel elements of nsm_sdk.mechanisms.
State: none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from nsm_sdk.api._gen.connection import Connection
from nsm_sdk.api._gen.networkservice import NetworkServiceRequest
from nsm_sdk.api.interface import check_interface_name, interface_name
from nsm_sdk.api.mechanism import DEFAULT_NETNS_URL, KERNEL, LOCAL, Kernel
from nsm_sdk.errors import InvalidRequest

_ACTION = re.compile(r"\{\{(?P<trim_left>-(?=\s))?(?P<text>.*?)(?P<trim_right>(?<=\s)-)?\}\}", re.DOTALL)
_FIELD = re.compile(r"\.(\w+)")
_INDEX = re.compile(r"index\s+\.(\w+)\s+([0-9]{1,6})")
_RULES_HINT = "use {{ .NsmInterfaceName }}, {{ index .NsmSrcIPs 0 }} and {{ index .NsmDstIPs 0 }}"


def prefer_kernel(
    request: NetworkServiceRequest,
    *,
    netns_url: str = DEFAULT_NETNS_URL,
    name: Callable[[str], str] = interface_name,
) -> None:
    """Makes the request ask for a kernel interface in `netns_url`; may be called again without harm.

    Kernel preferences that are there get the namespace and, where they have none, a name made by `name(service)`;
    where there is none, one is added. InvalidRequest for a name that Linux does not take.
    """
    views = [view for view in map(Kernel.of, request.mechanism_preferences) if view]
    if not views:
        views = [Kernel(request.mechanism_preferences.add(cls=LOCAL, type=KERNEL))]
    for view in views:
        _complete(view, request.connection.network_service, netns_url, name)


def complete_kernel(
    conn: Connection, *, netns_url: str = DEFAULT_NETNS_URL, name: Callable[[str], str] = interface_name
) -> None:
    """Gives a connection of the kernel mechanism its namespace and, where it has none, a name; leaves others alone."""
    view = Kernel.of(conn.mechanism) if conn.HasField("mechanism") else None
    if view:
        _complete(view, conn.network_service, netns_url, name)


def iptables_rules(conn: Connection) -> list[str]:
    """The rules of a connection's kernel mechanism with its values put in: arguments for `iptables -t nat`.

    InvalidRequest for a connection without rules and for a text that cannot be rendered. Understood is the part of
    Go's template language that speaks of one value.
    """
    view = Kernel.of(conn.mechanism)
    template = view.mechanism.parameters.get(Kernel.iptables_rules.key) if view else None
    if view is None or template is None:
        raise InvalidRequest("the connection carries no iptables rules", hint="set them on its kernel mechanism")
    context = conn.context.ip_context
    values: dict[str, str | Sequence[str]] = {
        "NsmInterfaceName": view.interface_name,
        "NsmSrcIPs": [address.partition("/")[0] for address in context.src_ip_addrs],
        "NsmDstIPs": [address.partition("/")[0] for address in context.dst_ip_addrs],
    }
    return _render(template, values).split(";")


def _complete(view: Kernel, service: str, netns_url: str, name: Callable[[str], str]) -> None:
    chosen = view.interface_name or name(service)
    check_interface_name(chosen)
    view.interface_name = chosen
    view.netns_url = netns_url


def _render(template: str, values: dict[str, str | Sequence[str]]) -> str:
    out: list[str] = []
    at = 0
    trim = False
    for action in _ACTION.finditer(template):
        before = template[at : action.start()]
        before = before.lstrip() if trim else before
        out += [before.rstrip() if action["trim_left"] else before, _evaluate(action["text"].strip(), values)]
        trim, at = bool(action["trim_right"]), action.end()
    rest = template[at:].lstrip() if trim else template[at:]
    if "{{" in rest:
        raise InvalidRequest(f"iptables rule has an open brace: {rest[:64]!r}", hint=_RULES_HINT)
    return "".join([*out, rest])


def _evaluate(text: str, values: dict[str, str | Sequence[str]]) -> str:
    field, index = _FIELD.fullmatch(text), _INDEX.fullmatch(text)
    value = values.get((field or index or [""] * 2)[1])
    if field and isinstance(value, str):
        return value
    if field and value is not None:
        return f"[{' '.join(value)}]"
    if index and value is not None and not isinstance(value, str):
        place = int(index[2])
        if place < len(value):
            return value[place]
        raise InvalidRequest(
            f"iptables rule asks for address {place} of {len(value)}: {text[:64]!r}", hint="count from 0"
        )
    raise InvalidRequest(f"iptables rule has {text[:64]!r}, which is not understood", hint=_RULES_HINT)
