# SPDX-License-Identifier: Apache-2.0
"""Event lines of connections and registrations."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nsm_sdk.api import NetworkServiceEndpoint
from nsm_sdk.cli.report import Report, ReportOwn, ReportRegistry
from nsm_sdk.cli.roles import nsc
from nsm_sdk.cli.settings import load
from nsm_sdk.cli.show import STAND_INS
from nsm_sdk.core import NSE, Backoff, Query, Role, find_all
from nsm_sdk.elements import Retry
from nsm_sdk.endpoint import PAUSES, public_url
from nsm_sdk.errors import NsmError, Unavailable
from nsm_sdk.registry import Begin
from nsm_sdk.testing import FailTimes, bind_registry, check_element, rig


class Heard:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def emit(self, event: str, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})

    def error(self, error: NsmError, *, id: str = "", **fields: Any) -> None:
        self.emit("error", id=id, **fields, code=error.status.name, hop=error.hop, message=error.message)

    @property
    def events(self) -> list[str]:
        return [line["event"] for line in self.lines]


def test_it_keeps_the_contract_of_elements() -> None:
    check_element(lambda: Report(Heard()))


async def test_a_connection_from_its_first_request_to_its_close() -> None:
    heard = Heard()
    async with rig(Report(heard)) as tested:
        conn = await tested.request()
        await tested.request()
        await tested.close()
        await tested.close()
    assert heard.events == ["connected", "refreshed", "closed"]
    assert {line["id"] for line in heard.lines} == {conn.id}
    assert all(line["ms"] >= 0 for line in heard.lines)


async def test_a_first_request_that_fails() -> None:
    heard, quiet = Heard(), Heard()
    for teller, first in ((heard, True), (quiet, False)):
        async with rig(Report(teller, first_errors=first), FailTimes(1, Unavailable("gone"))) as tested:
            with pytest.raises(Unavailable):
                await tested.request()
    assert heard.events == ["error"]
    assert (heard.lines[0]["code"], heard.lines[0]["message"]) == ("UNAVAILABLE", "gone")
    assert heard.lines[0]["hop"]
    assert quiet.events == []


async def test_a_refresh_that_fails_is_told_in_any_case() -> None:
    heard = Heard()

    class Fails(FailTimes):
        """The second request fails, not the first."""

        async def act(self, below: Any) -> Any:
            if len(self._seen.of(self.verb)) == 2:
                below.close()
                raise Unavailable("away")
            return await below

    async with rig(Report(heard, first_errors=False), Fails(0, Unavailable("away"))) as tested:
        await tested.request()
        with pytest.raises(Unavailable):
            await tested.request()
        await tested.close()
    assert heard.events == ["connected", "error", "closed"]


async def test_while_somebody_heals_the_success_is_theirs_to_tell() -> None:
    heard = Heard()
    healing = False
    async with rig(Report(heard, heals=lambda _: healing)) as tested:
        await tested.request()
        healing = True
        await tested.request()
        healing = False
        await tested.request()
    assert heard.events[:2] == ["connected", "refreshed"]


def _endpoint() -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(name="nse", network_service_names=["a", "b"])


async def test_a_registration_is_news_once() -> None:
    heard = Heard()
    bound = bind_registry(Begin(NSE), ReportRegistry(heard, NSE))
    async with Role("registry").serving() as running:
        for _ in range(3):
            await bound.register(running.call(), _endpoint())
        await bound.unregister(running.call(), _endpoint())
    assert heard.events == ["registered", "closed"]
    assert (heard.lines[0]["id"], heard.lines[0]["service"]) == ("nse", "a,b")


async def test_a_registration_of_our_own_is_news_again_when_it_was_lost() -> None:
    heard = Heard()
    bound = bind_registry(Begin(NSE), ReportOwn(heard, NSE))
    async with Role("registry").serving() as running:
        await bound.register(running.call(), _endpoint())
        # The stream that watches it ends at once here, as it does when the manager goes.
        await find_all(bound, running.call(), Query(NetworkServiceEndpoint(name="nse"), watch=True))
        await bound.register(running.call(), _endpoint())
        await find_all(bound, running.call(), Query(NetworkServiceEndpoint(name="nse")))
        await bound.register(running.call(), _endpoint())
    assert heard.events == ["registered", "registered"]


def test_pauses_grow_and_stay_below_20_tries_a_second() -> None:
    retry = nsc.client(load(nsc.Settings, file=STAND_INS, known=STAND_INS)[0]).role.connection.find(Retry)  # type: ignore[union-attr]
    assert retry is not None
    for backoff in (PAUSES, Backoff(retry.pause, retry.longest, low=0.75, high=1.25)):
        pauses = [backoff.pause(failures, random.Random(failures)) for failures in range(40)]
        assert min(pauses) >= 1 / 20
        assert all(pause >= 0.75 * backoff.last for pause in pauses[8:])
        assert max(pauses) <= 1.25 * backoff.last
        assert pauses[0] < pauses[2] < pauses[4]


@pytest.mark.parametrize(
    ("urls", "public"),
    [
        (["unix:///a"], "unix:///a"),
        (["unix:///a", "tcp://10.0.0.1:5001"], "tcp://10.0.0.1:5001"),
        (["tcp://:1", "tcp://127.0.0.1:2"], "tcp://127.0.0.1:2"),
    ],
)
def test_what_a_manager_tells_other_nodes(urls: list[str], public: str) -> None:
    assert public_url(urls) == public


@pytest.mark.parametrize("url", ["tcp://:7", "tcp://0.0.0.0:7", "tcp://[::]:7"])
def test_a_manager_on_all_addresses_tells_one_that_others_can_reach(url: str) -> None:
    public = public_url([url])
    assert public.startswith("tcp://")
    assert public.endswith(":7")
    assert public != url
