# SPDX-License-Identifier: Apache-2.0
"""IPAM elements: what a client is given, keeps, and gives back.

Does:  checks the decisions one by one; the recordings of the Go programs are compared in tests/wire.
Place: tests of the elements of `nsm_sdk.ipam`.
State: none.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from nsm_sdk.api import Connection
from nsm_sdk.core import Chain, Element
from nsm_sdk.errors import ChainOrderError, Exhausted, InvalidRequest, Unavailable
from nsm_sdk.ipam import PointToPointIpam, Policy, SinglePointIpam, StrictIpam, ipam_chain
from tests.ipam.driver import Hop, States, connection

Make = Callable[..., Element]
BOTH = pytest.mark.parametrize("make", [PointToPointIpam, SinglePointIpam])


def _fail(conn: Connection) -> None:
    raise Unavailable("nobody is there")


def _succeed(conn: Connection) -> None:
    return None


def _src(conn: Connection) -> list[str]:
    return list(conn.context.ip_context.src_ip_addrs)


def _dst(conn: Connection) -> list[str]:
    return list(conn.context.ip_context.dst_ip_addrs)


def _routes(conn: Connection) -> tuple[list[str], list[str]]:
    context = conn.context.ip_context
    return [route.prefix for route in context.src_routes], [route.prefix for route in context.dst_routes]


@BOTH
def test_a_failed_first_request_leaks_nothing(make: Make) -> None:
    hop = Hop(make("10.0.0.0/29"))
    hop.below.answer = _fail
    for number in range(20):
        with pytest.raises(Unavailable):
            hop.request(connection(str(number)))
    hop.below.answer = _succeed
    assert _src(hop.request(connection("last")))[0].startswith("10.0.0.1/")


@BOTH
def test_a_failed_refresh_keeps_the_addresses(make: Make) -> None:
    hop = Hop(make("10.0.0.0/29"))
    first = hop.request(connection())
    hop.below.answer = _fail
    with pytest.raises(Unavailable):
        hop.request(first)
    hop.below.answer = _succeed
    assert hop.request(first) == first
    assert set(_src(hop.request(connection("b")))).isdisjoint(_src(first))


@BOTH
def test_close_is_safe_at_any_time(make: Make) -> None:
    hop = Hop(make("10.0.0.0/29"))
    hop.close(connection("never requested"))
    first = hop.request(connection())
    hop.below.answer = _fail
    with pytest.raises(Unavailable):
        hop.close(first)
    hop.below.answer = _succeed
    hop.close(first)
    hop.close(first)
    assert [_src(hop.request(connection(name)))[0] for name in "bc"][0] == _src(first)[0]  # noqa: RUF015 - both are made


@BOTH
def test_closing_with_a_forged_list_frees_nothing_of_others(make: Make) -> None:
    hop = Hop(make("10.0.0.0/28"))
    first = hop.request(connection("a"))
    hop.request(connection("b"))
    hop.close(connection("b", src=tuple(_src(first)), dst=tuple(_dst(first))))
    assert set(_src(hop.request(connection("c")))).isdisjoint(_src(first))


@BOTH
def test_a_restarted_endpoint_gives_back_what_clients_had(make: Make) -> None:
    before = Hop(make("10.0.0.0/24"))
    clients = [before.request(connection(str(number))) for number in range(5)]
    after = Hop(make("10.0.0.0/24"))
    for client in reversed(clients):
        assert after.request(client) == client


@BOTH
def test_an_address_that_another_one_has_by_now_is_replaced(make: Make) -> None:
    before = Hop(make("10.0.0.0/24"))
    old = before.request(connection("old"))
    after = Hop(make("10.0.0.0/24"))
    new = after.request(connection("new"))
    assert _src(new) == _src(old)
    healed = after.request(old)
    assert len(_src(healed)) == 1
    assert _src(healed) != _src(new)
    assert set(_dst(healed)).isdisjoint(_dst(new))
    assert [len(routes) for routes in _routes(healed)] == [len(routes) for routes in _routes(new)]


@BOTH
def test_polite_keeps_foreign_addresses(make: Make) -> None:
    hop = Hop(make("10.0.0.0/24"))
    answer = hop.request(connection(src=("192.168.9.9/32", "rub/bish"), dst=("192.168.9.8/32",)))
    assert _src(answer)[0] == "192.168.9.9/32"
    assert _src(answer)[1].startswith("10.0.0.1/")
    assert _dst(answer)[0] == "192.168.9.8/32"


@BOTH
def test_exhausted_says_what_to_do(make: Make) -> None:
    hop = Hop(make("10.0.0.0/30"))
    hop.request(connection("a"))
    hop.request(connection("b"))
    with pytest.raises(Exhausted) as caught:
        hop.request(connection("c"))
    assert caught.value.message == "IPPool is empty"
    assert "larger" in caught.value.hint


@BOTH
def test_overlapping_prefixes_do_not_give_an_address_twice(make: Make) -> None:
    hop = Hop(make("10.0.0.0/30", "10.0.0.0/29"))
    given: list[str] = []
    for number in range(10):
        with suppress(Exhausted):
            given += [text.split("/")[0] for text in _src(hop.request(connection(str(number))))]
    assert 2 <= len(given) < 10
    assert len(given) == len(set(given))


@BOTH
def test_a_state_is_needed_above(make: Make) -> None:
    Chain("good", States(), make("10.0.0.0/24")).check()
    with pytest.raises(ChainOrderError, match="Begin"):
        Chain("bad", make("10.0.0.0/24")).check()


def test_a_conflict_moves_the_pair_and_keeps_the_old_one_until_it_has_moved() -> None:
    hop = Hop(PointToPointIpam("10.0.0.0/28"))
    first = hop.request(connection())
    first.context.ip_context.excluded_prefixes.append("10.0.0.0/30")
    hop.below.answer = _fail
    with pytest.raises(Unavailable):
        hop.request(first)
    hop.below.answer = _succeed
    other = hop.request(connection("b"))
    assert (_dst(other), _src(other)) == (["10.0.0.2/32"], ["10.0.0.3/32"])
    moved = hop.request(first)
    assert (_dst(moved), _src(moved)) == (["10.0.0.4/32"], ["10.0.0.5/32"])
    assert _routes(moved) == (["10.0.0.4/32"], ["10.0.0.5/32"])
    third = hop.request(connection("c"))
    assert (_dst(third), _src(third)) == (["10.0.0.0/32"], ["10.0.0.1/32"])


def test_a_conflict_with_one_address_may_reuse_the_other() -> None:
    hop = Hop(PointToPointIpam("10.0.0.0/28"))
    first = hop.request(connection())
    first.context.ip_context.excluded_prefixes.append("10.0.0.0/32")
    moved = hop.request(first)
    assert (_dst(moved), _src(moved)) == (["10.0.0.1/32"], ["10.0.0.2/32"])
    assert _routes(moved) == (["10.0.0.1/32"], ["10.0.0.2/32"])


@BOTH
def test_a_conflict_without_room_fails_and_keeps_the_old_addresses(make: Make) -> None:
    hop = Hop(make("10.0.0.0/30"))
    first = hop.request(connection())
    refused = connection(src=tuple(_src(first)), dst=tuple(_dst(first)), excluded=("10.0.0.0/30",))
    with pytest.raises(Exhausted):
        hop.request(refused)
    assert _src(hop.request(connection())) == _src(first)


def test_the_single_address_moves_away_from_a_conflict() -> None:
    hop = Hop(SinglePointIpam("10.0.0.0/28"))
    first = hop.request(connection())
    first.context.ip_context.excluded_prefixes.append("10.0.0.1/32")
    assert _src(hop.request(first)) == ["10.0.0.2/28"]
    assert _src(hop.request(connection("b"))) == ["10.0.0.1/28"]


def test_skipped_addresses_are_not_lost() -> None:
    hop = Hop(SinglePointIpam("10.0.0.0/28"))
    assert _src(hop.request(connection("a", excluded=("10.0.0.0/29",)))) == ["10.0.0.9/28"]
    given = [_src(hop.request(connection(str(number))))[0] for number in range(12)]
    assert given[:7] == [f"10.0.0.{number}/28" for number in range(1, 8)]
    with pytest.raises(Exhausted):
        hop.request(connection("too many"))


@pytest.mark.parametrize(
    ("prefix", "clients"), [("10.0.0.0/31", 0), ("10.0.0.0/32", 0), ("fd00::/127", 1), ("fd00::/128", 0)]
)
def test_tiny_networks_for_single_points(prefix: str, clients: int) -> None:
    hop = Hop(SinglePointIpam(prefix))
    for number in range(clients):
        assert _src(hop.request(connection(str(number)))) == ["fd00::1/127"]
    with pytest.raises(Exhausted):
        hop.request(connection("too many"))


def test_a_guest_keeps_a_free_address_of_ours_and_gives_it_back() -> None:
    hop = Hop(PointToPointIpam("10.0.0.0/29"))
    guest = hop.request(connection("guest", src=("10.0.0.2/32",)))
    assert _src(guest) == ["10.0.0.2/32", "10.0.0.1/32"]
    other = hop.request(connection("other"))
    assert (_dst(other), _src(other)) == (["10.0.0.3/32"], ["10.0.0.4/32"])
    hop.close(guest)
    assert _dst(hop.request(connection("next"))) == ["10.0.0.0/32"]
    assert _dst(hop.request(connection("last"))) == ["10.0.0.2/32"]


def test_one_client_cannot_take_the_whole_pool() -> None:
    hop = Hop(PointToPointIpam("10.0.0.0/24"))
    greedy = hop.request(connection("greedy", src=tuple(f"10.0.0.{number}/32" for number in range(256))))
    assert len(_src(greedy)) <= 18
    assert _src(hop.request(connection("modest")))


def test_strict_leaves_only_addresses_of_ours() -> None:
    hop = Hop(ipam_chain([["172.16.2.0/29"]], policy="Strict"))
    brought = connection(src=("172.16.1.1/32", "rubbish"), dst=("172.16.1.0/32",), excluded=("10.0.0.0/8",))
    context = brought.context.ip_context
    context.src_routes.add(prefix="172.16.1.0/32")
    context.src_routes.add(prefix="10.1.0.0/16")
    context.dst_routes.add(prefix="172.16.1.1/32")
    answer = hop.request(brought)
    assert (_src(answer), _dst(answer)) == (["172.16.2.1/32"], ["172.16.2.0/32"])
    assert _routes(answer) == (["10.1.0.0/16", "172.16.2.0/32"], ["172.16.2.1/32"])
    assert list(answer.context.ip_context.excluded_prefixes) == ["10.0.0.0/8"]
    assert hop.request(answer) == answer


def test_dual_stack_gives_both_families_and_rolls_back_both() -> None:
    hop = Hop(ipam_chain([["10.0.0.0/24"], ["fd00::/127"]]))
    first = hop.request(connection("a"))
    assert _src(first) == ["10.0.0.1/32", "fd00::1/128"]
    with pytest.raises(Exhausted):
        hop.request(connection("b"))
    hop.close(first)
    assert _src(hop.request(connection("c"))) == ["10.0.0.1/32", "fd00::1/128"]


def test_groups_must_not_overlap() -> None:
    with pytest.raises(InvalidRequest, match="overlaps another group"):
        ipam_chain([["10.0.0.0/16"], ["fd00::/64", "10.0.3.0/24"]])


@pytest.mark.parametrize("policy", list(Policy))
def test_no_groups_do_nothing(policy: Policy) -> None:
    brought = connection(src=("10.0.0.1/32",))
    assert Hop(ipam_chain([], policy=policy)).request(brought) == brought


def test_a_policy_is_known_by_its_name() -> None:
    assert Policy.parse("STRICT") is Policy.STRICT
    with pytest.raises(InvalidRequest, match="is no IPAM policy"):
        Policy.parse("rude")


def test_elements_show_their_prefixes() -> None:
    assert (
        repr(PointToPointIpam("10.0.0.7/24", "fd00::/64")) == "PointToPointIpam(prefixes=('10.0.0.0/24', 'fd00::/64'))"
    )
    assert repr(SinglePointIpam("10.0.0.0/24")) == "SinglePointIpam(prefixes=('10.0.0.0/24',))"
    assert repr(StrictIpam("10.0.0.0/24")) == "StrictIpam(prefixes=('10.0.0.0/24',))"


@BOTH
def test_a_prefix_must_be_one(make: Make) -> None:
    with pytest.raises(InvalidRequest):
        make("10.0.0.0")
    with pytest.raises(InvalidRequest):
        make()
