# SPDX-License-Identifier: Apache-2.0
"""NAT rules that an endpoint sends with the kernel mechanism.

Does:  `iptables_rules` renders the rules' template over a connection's interface name and addresses.
Place: forwarders that build kernel connections.
State: none.
"""

from __future__ import annotations

from nsm_sdk.api import Connection, Kernel
from nsm_sdk.core.templates import Template
from nsm_sdk.errors import InvalidRequest, TemplateError

_HINT = "use {{ .NsmInterfaceName }}, {{ index .NsmSrcIPs 0 }} and {{ index .NsmDstIPs 0 }}"


def iptables_rules(conn: Connection) -> list[str]:
    """The rules of a connection's kernel mechanism with its values put in: arguments for `iptables -t nat`.

    InvalidRequest for a connection without rules and for a template that cannot be rendered. Its spelling is Go's.
    """
    view = Kernel.of(conn.mechanism)
    text = view.mechanism.parameters.get(Kernel.iptables_rules.key) if view else None
    if view is None or text is None:
        raise InvalidRequest("the connection carries no iptables rules", hint="set them on its kernel mechanism")
    context = conn.context.ip_context
    values = {
        "NsmInterfaceName": view.interface_name,
        "NsmSrcIPs": [address.partition("/")[0] for address in context.src_ip_addrs],
        "NsmDstIPs": [address.partition("/")[0] for address in context.dst_ip_addrs],
    }
    try:
        return Template(text, values, jinja=False).render(values).split(";")
    except TemplateError as error:
        raise InvalidRequest(f"iptables rules: {error.message}", hint=error.hint or _HINT) from error
