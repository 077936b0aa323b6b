# SPDX-License-Identifier: Apache-2.0
"""Settings that every role has.

Does:  declares them, and the checks that concern more than one of them.
Place: base of each role's `Settings`.
State: none.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from nsm_sdk.api import Target
from nsm_sdk.cli import codecs
from nsm_sdk.cli.settings import BadSettings, setting

NO_LABELS: Mapping[str, str] = MappingProxyType({})
MANAGER = "unix:///var/lib/networkservicemesh/nsm.io.sock"
"""Where managers listen, and where everybody looks for theirs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Common:
    """What all roles can be told."""

    name: str = setting(codecs.NAME, None, "name of this program in the mesh")
    identity: str = setting(
        codecs.IDENTITY,
        "insecure",
        "where identity comes from; insecure: no TLS, tokens signed with a key that is no secret",
    )
    insecure_subject: str = setting(
        codecs.SUBJECT,
        "",
        "who this program says it is, with NSM_IDENTITY=insecure",
        shown="spiffe://insecure.test/<role>/<name>",
    )
    allow_insecure_listen: bool = setting(
        codecs.BOOLEAN, "false", "with NSM_IDENTITY=insecure: also listen on TCP addresses other than loopback"
    )
    max_token_lifetime: float = setting(codecs.POSITIVE, "10m", "the longest life of a token that this program makes")
    admin_socket: str = setting(
        codecs.SOCKET, "", "a unix socket that answers questions about this program, see `nsm explain`"
    )
    shutdown_timeout: float = setting(codecs.POSITIVE, "10s", "the longest time between a signal to leave and the end")
    log_level: str = setting(codecs.LEVEL, "INFO", "what is logged on stderr")
    log_format: str = setting(codecs.choice("text", "json"), "text", "how it is logged")

    def check(self) -> None:
        """BadSettings where values do not go together."""
        listen: tuple[Target, ...] = getattr(self, "listen_on", ())
        if self.identity == "insecure" and not self.allow_insecure_listen:
            for target in listen:
                if target.network == "tcp" and not is_loopback(target.host):
                    raise BadSettings(
                        f"NSM_LISTEN_ON={target.url!r}: with NSM_IDENTITY=insecure everybody who reaches this address "
                        "is believed; expected a loopback address such as tcp://127.0.0.1:5001, or "
                        "NSM_ALLOW_INSECURE_LISTEN=true"
                    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembering(Common):
    """What roles can be told that keep something for their next start."""

    state_dir: str = setting(
        codecs.FOLDER,
        "",
        "folder of what this program keeps for its next start: the secret from which it derives connection ids, and a "
        "forwarder's records of what it has built",
        shown="/run/nsm/<name>",
    )

    @property
    def state(self) -> Path:
        """The folder of what is kept."""
        own = self.name.replace("/", "_")
        # These two would be folders of others.
        return Path(self.state_dir or f"/run/nsm/{own if own not in ('.', '..') else own.replace('.', '_')}")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


LISTEN_MEANING = "where this program listens; port 0 takes any free one"
CONNECT_MEANING = "address of the manager"
DATAPATH_MEANING = "kernel: real interfaces; simulated: none, and no privileges are needed"
NETNS_MEANING = "network namespace, by name or path, that gets the interfaces instead of this program's own"
DATAPATH = codecs.choice("kernel", "simulated")
