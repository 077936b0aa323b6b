# SPDX-License-Identifier: Apache-2.0
"""What the probe says of a machine that cannot do something.

Does:  each error of the kernel becomes a reason that a reader can act on.
Place: nsm_sdk.netlink.probe.
State: none.
"""

from __future__ import annotations

import errno
import os

import pytest

from nsm_sdk.netlink.probe import why_not


def error(number: int, *more: str) -> OSError:
    return OSError(number, os.strerror(number), *more)


@pytest.mark.parametrize(
    ("name", "raised", "reason"),
    [
        ("vlan", error(errno.EOPNOTSUPP), "this kernel has no interfaces of kind vlan"),
        ("nftables", error(errno.EPROTONOSUPPORT), "this kernel has no nftables"),
        ("tun", error(errno.ENODEV, "/dev/net/tun"), "this kernel has no interfaces of kind tun"),
        ("tun", error(errno.ENOENT, "/dev/net/tun"), "there is no /dev/net/tun"),
        ("veth", error(errno.EPERM), "this needs root or CAP_NET_ADMIN"),
        ("icmp", error(errno.EACCES), "raw sockets need root or CAP_NET_RAW"),
        ("veth", error(errno.ENOSPC), os.strerror(errno.ENOSPC)),
    ],
)
def test_reasons(name: str, raised: OSError, reason: str) -> None:
    assert why_not(name, raised) == reason
