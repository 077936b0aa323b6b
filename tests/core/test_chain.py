# SPDX-License-Identifier: Apache-2.0
"""Binding, walking and editing chains."""

from __future__ import annotations

import pytest

from nsm_sdk.api import Connection, ConnectionEvent, NetworkServiceEndpoint, Request, Selector
from nsm_sdk.core import (
    END,
    NSE,
    QUERY_END,
    WATCH_END,
    Call,
    Chain,
    Element,
    Next,
    Query,
    QueryElement,
    QueryNext,
    RegistryElement,
    Role,
    WatchElement,
    find_all,
    find_one,
    registry_end,
)
from nsm_sdk.errors import ProgrammingError
from nsm_sdk.testing import sample_endpoint
from tests.core.elements import (
    Announces,
    Branches,
    Closes,
    Last,
    NamesEndpoint,
    Once,
    Passive,
    Table,
    Tags,
    UsesTable,
)


async def asked(bound: Next, id: str = "left") -> str:
    async with Role("hop").serving() as running:
        conn = await bound.request(running.call(), Request(connection=Connection(id=id)))
        return conn.network_service


def test_verbs_that_nobody_overrides_are_not_bound() -> None:
    below = Next(END.request, END.close)
    bound = Chain("plain", Passive(), Chain("inner", Passive()), Passive()).bind(below)
    assert bound.request is below.request
    assert bound.close is below.close


def test_only_the_overridden_verb_is_bound() -> None:
    bound = Tags("a").bind(END)
    assert bound.request is not END.request
    assert bound.close is END.close
    bound = Closes().bind(END)
    assert bound.request is END.request
    assert bound.close is not END.close


def test_an_override_further_up_the_class_counts() -> None:
    class Deeper(Tags):
        """Overrides nothing of its own."""

    assert Deeper("x").overrides("request")
    assert not Deeper("x").overrides("close")


def test_registry_watch_and_query_verbs_are_left_out_as_well() -> None:
    end = registry_end()
    bound = RegistryElement[NetworkServiceEndpoint]().bind(end)
    assert (bound.register, bound.unregister, bound.find) == (end.register, end.unregister, end.find)
    assert WatchElement().bind(WATCH_END).watch is WATCH_END.watch
    assert QueryElement().bind(QUERY_END).query is QUERY_END.query


async def test_a_request_meets_the_elements_in_order() -> None:
    chain = Chain("all", Tags("a"), Chain("inner", Tags("b"), Passive()), Tags("c"))
    assert await asked(chain.bind(END)) == "a>b>c><c<b<a"


async def test_an_element_may_call_the_rest_directly_by_the_pass_through() -> None:
    class Both(Tags):
        async def request(self, call: Call, request: Request, next: Next) -> Connection:
            return await Element.request(self, call, request, next)

        async def close(self, call: Call, conn: Connection, next: Next) -> None:
            await Element.close(self, call, conn, next)

    below = Closes()
    bound = Chain("all", Both("x"), below).bind(END)
    async with Role("hop").serving() as running:
        await bound.request(running.call(), Request())
        await bound.close(running.call(), Connection(id="one"))
    assert below.closed == ["one"]


async def test_branches_share_what_follows() -> None:
    chain = Chain("all", Branches(Tags("l"), Chain("r", Tags("r1"), Tags("r2"))), Tags("end"))
    bound = chain.bind(END)
    assert await asked(bound, "left") == "l>end><end<l"
    assert await asked(bound, "right") == "r1>r2>end><end<r2<r1"


async def test_one_chain_may_be_bound_many_times() -> None:
    chain = Chain("all", Tags("a"))
    assert await asked(chain.bind(END)) == await asked(chain.bind(END)) == "a><a"


async def test_closers_are_the_closes_below_each_alone() -> None:
    first, second = Closes(), Closes()
    bound = Chain("all", first, Passive(), Tags("t"), second).bind(END)
    assert len(bound.closers) == 2
    async with Role("hop").serving() as running:
        await bound.closers[1](running.call(), Connection(id="one"))
        assert (first.closed, second.closed) == ([], ["one"])
        await bound.closers[0](running.call(), Connection(id="two"))
    assert (first.closed, second.closed) == (["two"], ["one"])


@pytest.mark.parametrize("wrong", [Tags, "Tags", None])
def test_only_instances_are_elements(wrong: object) -> None:
    with pytest.raises(ProgrammingError, match="item 1") as caught:
        Chain("all", Passive(), wrong)  # type: ignore[arg-type]
    assert "instances" in caught.value.hint


def test_editing_answers_a_new_chain() -> None:
    one, two = Tags("one"), Tags("two")
    chain = Chain("all", Passive(), Chain("inner", one), Once())
    edited = chain.replace(Tags, two)
    assert [type(layer).__name__ for layer in edited.walk()] == ["Passive", "Chain", "Tags", "Once"]
    assert edited.find(Tags) is two
    assert chain.find(Tags) is one
    assert edited.name == "all"


def test_editing_in_all_its_forms() -> None:
    def names(chain: Chain[Next]) -> list[str]:
        return [type(layer).__name__ for layer in chain.walk()]

    chain: Chain[Next] = Chain("all", Tags("a"), Once(), Tags("b"))
    assert names(chain.replace(Tags)) == ["Once"]
    assert names(chain.replace(Once, Passive(), Last())) == ["Tags", "Passive", "Last", "Tags"]
    assert names(chain.insert_after(Tags, Passive())) == ["Tags", "Passive", "Once", "Tags", "Passive"]
    assert names(chain.insert_before(Once, Passive(), Last())) == ["Tags", "Passive", "Last", "Once", "Tags"]


def test_editing_what_is_not_there_says_what_is() -> None:
    with pytest.raises(ProgrammingError, match="no Last") as caught:
        Chain("all", Tags("a"), Chain("inner", Once())).replace(Last)
    assert caught.value.hint == "it has Tags, Chain, Once"
    with pytest.raises(ProgrammingError) as caught:
        Chain[Next]("empty").insert_after(Last)
    assert caught.value.hint == "it has no elements"


def test_walk_and_find_see_branches() -> None:
    last = Last()
    chain = Chain("all", Branches(Tags("l"), Chain("r", last)))
    assert [type(layer).__name__ for layer in chain.walk()] == ["Branches", "Tags", "Chain", "Last"]
    assert chain.find(Last) is last
    assert chain.find(Once) is None
    assert len(chain) == 1


def test_services_are_found_once_in_order() -> None:
    first, second = Table(), Table()
    chain = Chain("all", UsesTable(second), Branches(UsesTable(first), UsesTable(second)))
    assert chain.all_services() == [second, first]


async def test_registry_elements_and_how_to_read_a_find() -> None:
    bound = Chain("registry", NamesEndpoint()).bind(registry_end())
    async with Role("hop").serving() as running:
        answer = await bound.register(running.call(), sample_endpoint("a"))
        assert answer.name == "a-renamed"
        await bound.unregister(running.call(), answer)
        query = Query(NetworkServiceEndpoint())
        assert [entry.name for entry in await find_all(bound, running.call(), query)] == ["first", "second"]
        found = await find_one(bound, running.call(), query)
        assert found is not None
        assert found.name == "first"
        assert await find_one(registry_end(), running.call(), query) is None


def test_a_kind_copies_without_sharing() -> None:
    entry = sample_endpoint("a")
    copy = NSE.copy(entry)
    copy.network_service_names.append("more")
    assert list(entry.network_service_names) == ["service-1"]
    assert copy.name == "a"


async def test_watch_elements() -> None:
    bound = Chain("monitor", Announces(), Announces()).bind(WATCH_END)
    async with Role("hop").serving() as running:
        events = [event async for event in bound.watch(running.call(), Selector())]
    assert events == [ConnectionEvent(), ConnectionEvent()]


async def test_query_elements() -> None:
    class Says(QueryElement):
        async def query(self, call: Call, message: object, next: QueryNext) -> object:
            return await next.query(call, message) or "mine"

    async with Role("hop").serving() as running:
        assert await Chain("dns", QueryElement(), Says()).bind(QUERY_END).query(running.call(), "?") == "mine"
