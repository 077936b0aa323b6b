# SPDX-License-Identifier: Apache-2.0
"""The three-way merge of a client's repeated request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, ConnectionContext
from nsm_sdk.elements import merge
from nsm_sdk.elements.merge import _merge_list

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


class Noting(str):
    """A text that counts how often it is compared."""

    __slots__ = ()
    compared = 0

    def __eq__(self, other: object) -> bool:
        Noting.compared += 1
        return super().__eq__(other)

    __hash__ = str.__hash__


@given(st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcd")), st.lists(st.sampled_from("abcd")))
def test_a_list_keeps_what_the_caller_did_not_take_out_and_gets_what_it_put_in(
    current: list[str], before: list[str], now: list[str]
) -> None:
    into = list(current)
    _merge_list(into, before, now)
    kept = [item for item in current if item not in before or item in now]
    assert into == kept + [item for item in now if item not in before and item not in kept]


def test_long_lists_are_merged_item_by_item() -> None:
    texts = [str(number) for number in range(1_000)]
    Noting.compared = 0
    current, before, now = ([Noting(item) for item in texts] for _ in range(3))
    now.append(Noting("more"))
    _merge_list(current, before, now)
    assert len(current) == 1_001
    assert Noting.compared < 20 * len(texts)


def test_messages_are_the_same_by_what_is_in_them() -> None:
    returned, asked, current = Connection(), Connection(), Connection()
    for one in (returned, current):
        one.context.ip_context.src_routes.add(prefix="10.0.0.0/8", nextHop="172.16.0.1")
    asked.context.ip_context.src_routes.add(prefix="10.1.0.0/16")
    current.context.ip_context.src_routes.add(prefix="10.2.0.0/16")
    found = merge(returned, asked, current).context.ip_context.src_routes
    assert [one.prefix for one in found] == ["10.2.0.0/16", "10.1.0.0/16"]
