# SPDX-License-Identifier: Apache-2.0
"""The three-way merge of a client's repeated request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, ConnectionContext
from nsm_sdk.elements import merge

maps = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("xyz"))


def conn(*, name: str = "", labels: dict[str, str] | None = None, extra: dict[str, str] | None = None) -> Connection:
    made = Connection(id="c", network_service_endpoint_name=name, labels=labels or {})
    if extra is not None:
        made.context.CopyFrom(ConnectionContext(extra_context=extra))
    return made


@given(maps, maps)
def test_asking_for_what_one_was_given_changes_nothing(returned: dict[str, str], current: dict[str, str]) -> None:
    given_back = conn(name="old", labels=returned, extra=returned)
    now = conn(name="new", labels=current, extra=current)
    assert merge(given_back, given_back, now) == now


@given(maps, maps)
def test_without_a_change_behind_the_callers_back_it_gets_what_it_asks(
    returned: dict[str, str], asked: dict[str, str]
) -> None:
    given_back = conn(name="a", labels=returned, extra=returned)
    wanted = conn(name="b", labels=asked, extra=asked)
    assert merge(given_back, wanted, given_back) == wanted


@given(maps, maps, maps)
def test_each_key_goes_to_whoever_changed_it(
    returned: dict[str, str], asked: dict[str, str], current: dict[str, str]
) -> None:
    merged = merge(conn(extra=returned), conn(extra=asked), conn(extra=current)).context.extra_context
    for key in "abcd":
        expected = current.get(key) if asked.get(key) == returned.get(key) else asked.get(key)
        assert merged.get(key) == expected


def test_a_stale_endpoint_name_does_not_undo_a_move() -> None:
    assert merge(conn(name="old"), conn(name="old"), conn(name="new")).network_service_endpoint_name == "new"
    assert merge(conn(name="old"), conn(name="mine"), conn(name="new")).network_service_endpoint_name == "mine"


def test_a_changed_address_context_is_the_callers() -> None:
    returned, current = conn(extra={}), conn(extra={"k": "v"})
    asked = conn(extra={})
    asked.context.ip_context.src_ip_addrs.append("10.0.0.1/32")
    merged = merge(returned, asked, current)
    assert list(merged.context.ip_context.src_ip_addrs) == ["10.0.0.1/32"]
    assert dict(merged.context.extra_context) == {"k": "v"}
