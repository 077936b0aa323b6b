# SPDX-License-Identifier: Apache-2.0
"""Settings from flags, environment and file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nsm_sdk.cli import roles
from nsm_sdk.cli.roles import nsc, nse, nsmgr
from nsm_sdk.cli.roles.common import Common
from nsm_sdk.cli.settings import BadSettings, declared, help_text, load, read_env_file, read_flags

# What programs.md promises; a change here breaks somebody's container.
DEFAULTS: dict[str, dict[str, str | None]] = {
    "registry": {
        "NSM_LISTEN_ON": "unix:///listen.on.socket",
        "NSM_EXPIRE_PERIOD": "1m",
        "NSM_PROXY_REGISTRY_URL": "",
        "NSM_STORE": "memory",
    },
    "nsmgr": {
        "NSM_NAME": "nsmgr",
        "NSM_LISTEN_ON": "unix:///var/lib/networkservicemesh/nsm.io.sock",
        "NSM_REGISTRY_URL": "tcp://localhost:5001",
        "NSM_FORWARDER_NETWORK_SERVICE_NAME": "forwarder",
        "NSM_DIAL_TIMEOUT": "750ms",
    },
    "forwarder": {
        "NSM_NAME": "forwarder",
        "NSM_LISTEN_ON": "unix:///listen.on.socket",
        "NSM_CONNECT_TO": "unix:///var/lib/networkservicemesh/nsm.io.sock",
        "NSM_STATE_DIR": "",
        "NSM_ORPHAN_TIMEOUT": "",
        "NSM_LABELS": "p2p:true",
        "NSM_NSNAME": "forwarder",
        "NSM_TUNNEL_IP": "",
        "NSM_DATAPATH": "kernel",
    },
    "nse": {
        "NSM_NAME": "icmp-server",
        "NSM_CONNECT_TO": "unix:///var/lib/networkservicemesh/nsm.io.sock",
        "NSM_LISTEN_ON": "",
        "NSM_SERVICE_NAMES": "icmp-responder",
        "NSM_LABELS": "",
        "NSM_PAYLOAD": "ETHERNET",
        "NSM_CIDR_PREFIX": "169.254.0.0/16",
        "NSM_IPAM_POLICY": "polite",
        "NSM_REGISTER_SERVICE": "true",
        "NSM_UNREGISTER_ITSELF": "false",
        "NSM_IDLE_TIMEOUT": "0",
        "NSM_NETNS": "",
        "NSM_DATAPATH": "kernel",
    },
    "nsc": {
        "NSM_NAME": "nsc",
        "NSM_CONNECT_TO": "unix:///var/lib/networkservicemesh/nsm.io.sock",
        "NSM_NETWORK_SERVICES": None,
        "NSM_LABELS": "",
        "NSM_AWARENESS_GROUPS": "",
        "NSM_MECHANISM": "kernel",
        "NSM_REQUEST_TIMEOUT": "15s",
        "NSM_DIAL_TIMEOUT": "5s",
        "NSM_LIVENESS_CHECK_ENABLED": "true",
        "NSM_LIVENESS_CHECK_INTERVAL": "200ms",
        "NSM_LIVENESS_CHECK_TIMEOUT": "1s",
        "NSM_LIVENESS_PROBE": "auto",
        "NSM_NETNS": "",
        "NSM_DATAPATH": "kernel",
    },
}
COMMON = {
    "NSM_IDENTITY": "insecure",
    "NSM_INSECURE_SUBJECT": "",
    "NSM_ALLOW_INSECURE_LISTEN": "false",
    "NSM_MAX_TOKEN_LIFETIME": "10m",
    "NSM_ADMIN_SOCKET": "",
    "NSM_SHUTDOWN_TIMEOUT": "10s",
    "NSM_LOG_LEVEL": "INFO",
    "NSM_LOG_FORMAT": "text",
}


@pytest.mark.parametrize("role", DEFAULTS)
def test_names_and_defaults_are_those_of_the_manual(role: str) -> None:
    found = {one.name: one.default for one in declared(roles.module(role).Settings)}
    expected = {**DEFAULTS[role], **COMMON}
    assert {name: found.get(name, "missing") for name in expected} == expected


@pytest.mark.parametrize("role", DEFAULTS)
def test_every_default_can_be_read_and_every_setting_is_explained(role: str) -> None:
    kind = roles.module(role).Settings
    settings, warnings = load(kind, flags={"NSM_NETWORK_SERVICES": "kernel://a"} if role == "nsc" else {})
    settings.check()
    assert warnings == []
    text = help_text(kind)
    for one in declared(kind):
        assert one.meaning
        assert one.name in text


def test_flags_win_over_the_environment_and_that_over_the_file() -> None:
    settings, _ = load(
        nsmgr.Settings,
        flags={"NSM_NAME": "flag"},
        environment={"NSM_NAME": "environment", "NSM_DIAL_TIMEOUT": "2s"},
        file={"NSM_NAME": "file", "NSM_DIAL_TIMEOUT": "3s", "NSM_SHUTDOWN_TIMEOUT": "4s"},
    )
    assert (settings.name, settings.dial_timeout, settings.shutdown_timeout) == ("flag", 2.0, 4.0)


def test_explicitly_empty_is_not_the_default() -> None:
    assert load(nsmgr.Settings)[0].registry_url == "tcp://localhost:5001"
    assert load(nsmgr.Settings, environment={"NSM_REGISTRY_URL": ""})[0].registry_url is None
    assert load(nse.Settings, environment={"NSM_CIDR_PREFIX": ""})[0].cidr_prefix == ()


@pytest.mark.parametrize("name", ["nsmgr", "a/b", ".", "..", "../..", "..."])
def test_the_folder_of_what_is_kept_is_the_programs_own(name: str) -> None:
    state = load(nsmgr.Settings, environment={"NSM_NAME": name})[0].state
    assert Path(os.path.normpath(state)).parent == Path("/run/nsm")


def test_an_unknown_name_is_a_warning_with_the_nearest_known_one() -> None:
    _, warnings = load(nsmgr.Settings, environment={"NSM_LISTENON": "x", "OTHER": "y", "NSM_QQQQQQQQ": "z"})
    assert len(warnings) == 2
    assert "NSM_LISTENON" in warnings[0]
    assert "NSM_LISTEN_ON" in warnings[0]
    assert "NSM_QQQQQQQQ" in warnings[1]


def test_a_setting_of_another_role_is_told_only_where_it_is_meant_for_this_one() -> None:
    known = {"NSM_SERVICE_NAMES"}
    _, quiet = load(nsmgr.Settings, environment={"NSM_SERVICE_NAMES": "x"}, known=known)
    _, loud = load(nsmgr.Settings, flags={"NSM_SERVICE_NAMES": "x"}, known=known)
    assert quiet == []
    assert len(loud) == 1
    assert "other roles" in loud[0]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (nsmgr.Settings, "NSM_DIAL_TIMEOUT", "soon"),
        (nsmgr.Settings, "NSM_LISTEN_ON", "http://x"),
        (nsmgr.Settings, "NSM_NAME", ""),
        (nsmgr.Settings, "NSM_LOG_LEVEL", "LOUD"),
        (nsmgr.Settings, "NSM_IDENTITY", "spiffe"),
        (nsmgr.Settings, "NSM_INSECURE_SUBJECT", "me"),
        (nse.Settings, "NSM_CIDR_PREFIX", "10.0.0.0/8,10.0.0.0/16"),
        (nse.Settings, "NSM_SERVICE_NAMES", "a,,b"),
        (nse.Settings, "NSM_PAYLOAD", "WATER"),
        (nse.Settings, "NSM_REGISTER_SERVICE", "maybe"),
        (nsc.Settings, "NSM_NETWORK_SERVICES", "kernel://a/interface-name-too-long"),
        (nsc.Settings, "NSM_NETWORK_SERVICES", ""),
        (nsc.Settings, "NSM_AWARENESS_GROUPS", "[kernel://a"),
    ],
)
def test_a_bad_value_names_variable_value_and_what_is_expected(kind: type[Common], name: str, value: str) -> None:
    with pytest.raises(BadSettings) as caught:
        load(kind, environment={"NSM_NETWORK_SERVICES": "kernel://a", name: value})
    text = str(caught.value)
    assert text.startswith(f"{name}={value!r}: ")
    assert "expected" in text
    assert "\n" not in text


def test_what_must_be_given() -> None:
    with pytest.raises(BadSettings, match="NSM_NETWORK_SERVICES is not set: expected service URLs"):
        load(nsc.Settings)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://localhost:1", "tcp://[::1]:1", "unix:///x"])
def test_who_may_listen_insecurely(address: str) -> None:
    load(nsmgr.Settings, flags={"NSM_LISTEN_ON": address})[0].check()


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:1", "tcp://:1", "tcp://10.0.0.1:1", "tcp://[::]:1", "tcp://host:1"])
def test_who_may_not(address: str) -> None:
    with pytest.raises(BadSettings, match=r"NSM_LISTEN_ON=.*NSM_ALLOW_INSECURE_LISTEN"):
        load(nsmgr.Settings, flags={"NSM_LISTEN_ON": f"unix:///x,{address}"})[0].check()
    load(nsmgr.Settings, flags={"NSM_LISTEN_ON": address, "NSM_ALLOW_INSECURE_LISTEN": "true"})[0].check()


def test_a_file_has_comments_quotes_and_blanks(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text(
        "# a comment\n\n  NSM_NAME = blue  # another\nexport NSM_LABELS=a:b\nNSM_STORE='x # y' # z\n"
        'NSM_A="q"\nNSM_B=\nNSM_C=u#v\nNODE_NAME=n\r\n'
    )
    assert read_env_file(str(file)) == {
        "NSM_NAME": "blue",
        "NSM_LABELS": "a:b",
        "NSM_STORE": "x # y",
        "NSM_A": "q",
        "NSM_B": "",
        "NSM_C": "u#v",
        "NODE_NAME": "n",
    }


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="cannot be read"):
        read_env_file(str(tmp_path / "none"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe=")
    with pytest.raises(BadSettings, match="not a text file"):
        read_env_file(str(tmp_path / "bytes"))
    (tmp_path / "bad").write_text("NSM_NAME=x\nwhat is this\n")
    with pytest.raises(BadSettings, match="line 2"):
        read_env_file(str(tmp_path / "bad"))


def test_flags_use_full_names() -> None:
    assert read_flags(["NSM_NAME=a=b"]) == {"NSM_NAME": "a=b"}
    for flag in ("NAME=x", "NSM_NAME", "=x"):
        with pytest.raises(BadSettings, match="full name"):
            read_flags([flag])


SOCKETS = [
    *((role, "NSM_ADMIN_SOCKET", "") for role in DEFAULTS),
    *((role, "NSM_LISTEN_ON", "unix://") for role in DEFAULTS if role != "nsc"),
    *((role, "NSM_CONNECT_TO", "unix://") for role in ("forwarder", "nse", "nsc")),
    ("nsmgr", "NSM_REGISTRY_URL", "unix://"),
]


@pytest.mark.parametrize(("role", "name", "scheme"), SOCKETS)
def test_a_path_that_is_too_long_for_a_socket_is_refused_with_its_length(role: str, name: str, scheme: str) -> None:
    kind = roles.module(role).Settings
    more = {"NSM_NETWORK_SERVICES": "kernel://a"} if role == "nsc" else {}
    longest = scheme + "/tmp/" + "é" * 51
    load(kind, environment={**more, name: longest})[0].check()
    with pytest.raises(BadSettings) as caught:
        load(kind, environment={**more, name: longest + "x"})
    for part in (f"{name}={longest + 'x'!r}", "has 108 bytes", "at most 107"):
        assert part in str(caught.value)


@pytest.mark.parametrize("path", ["admin", "unix:///run/admin", "/run/"])
def test_what_is_no_path_of_a_socket(path: str) -> None:
    with pytest.raises(BadSettings, match=r"NSM_ADMIN_SOCKET=.*expected the absolute path of a unix socket"):
        load(nse.Settings, environment={"NSM_ADMIN_SOCKET": path})
