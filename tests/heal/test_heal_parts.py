# SPDX-License-Identifier: Apache-2.0
"""The parts of healing that need no mesh: journal, happenings, moving, targets, regular checks.

Does:  each by itself.
Place: nsm_sdk.heal.
State: none.
"""

from __future__ import annotations

import json
import logging
import random
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, Request
from nsm_sdk.core import Runtime
from nsm_sdk.errors import FailedPrecondition, NoCandidate, Unavailable
from nsm_sdk.heal import (
    All,
    Ask,
    Event,
    Happening,
    Happenings,
    Heal,
    Journal,
    Journals,
    Kind,
    Liveness,
    Probe,
    Target,
    Verdict,
    Why,
    log_entries,
    select_anew,
    story,
    telemetry,
)
from nsm_sdk.heal.held import is_fault, is_gone
from nsm_sdk.heal.moving import Given
from nsm_sdk.heal.probes.icmp import checksum, echo_reply, echo_request
from nsm_sdk.heal.probes.neighbour import advertises, arp_answers, arp_question, solicited_node
from nsm_sdk.heal.probes.probe import Cancel, Regular, Tell, here, url_of
from nsm_sdk.heal.steps import Note
from nsm_sdk.testing import VirtualClock, check_element, rig, settled, virtual_time


def test_heal_keeps_the_contract_of_elements() -> None:
    check_element(lambda: Heal(seed=1))


# -- journal --


def test_a_journal_is_bounded_and_says_what_it_dropped() -> None:
    journals = Journals(entries=3)
    journal = journals.open("c1", "svc")
    for number in range(5):
        journals.note(journal, Note(kind=Kind.WAIT, text=f"n{number}"), float(number), 1000.0 + number)
    assert [entry.text for entry in journal.entries] == ["n2", "n3", "n4"]
    assert journal.dropped == 2
    assert "2 older entries were dropped" in story(journal)


def test_a_journal_survives_json_and_tells_the_same_story() -> None:
    journals = Journals()
    journal = journals.open("c1", "svc")
    journals.note(journal, Note(kind=Kind.DOWN, text="no answer", why=Why.DATA, detect=0.29), 1.0, 100.0)
    healed = Note(kind=Kind.HEALED, text="at nse-2", why=Why.DATA, moved=True, repair=0.012, attempts=1)
    journals.note(journal, healed, 1.3, 100.3)
    again = Journal.from_dict(json.loads(json.dumps(journal.as_dict())))
    assert again.entries == journal.entries
    assert story(again) == story(journal)
    assert (again.heals, again.moves) == (1, 1)
    assert "repaired in 12.0 ms, 1 attempt)" in story(journal)
    assert "last known to be up 290.0 ms before" in story(journal)


def test_refreshes_in_a_row_are_one_entry() -> None:
    journals = Journals()
    journal = journals.open("c1")
    for number in range(1000):
        journals.note(journal, Note(kind=Kind.REFRESHED, text="refreshed", moved=False), float(number), 0.0)
    (entry,) = journal.entries
    assert (entry.at, entry.times, journal.dropped) == (999.0, 1000, 0)
    assert "1000 times in a row" in story(journal)
    journals.note(journal, Note(kind=Kind.REFRESHED, text="moved to nse-2", moved=True), 0.0, 0.0)
    assert len(journal) == 2


def test_an_empty_story() -> None:
    assert "nothing has happened yet" in story(Journal("c1"))


def test_journals_of_closed_connections_are_kept_for_a_while() -> None:
    journals = Journals(closed=2)
    for name in ("a", "b", "c"):
        journals.open(name)
        journals.close(name)
    assert journals.get("a") is None
    kept = journals.get("c")
    assert kept is not None
    assert journals.open("c") is kept
    assert {journal.id for journal in journals} == {"b", "c"}
    assert len(journals) == 2


def test_trouble_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    journals = Journals([log_entries])
    with caplog.at_level(logging.INFO, "nsm_sdk.heal"):
        journal = journals.open("c1")
        journals.note(journal, Note(kind=Kind.HEALING, text="the datapath is down"), 0.0, 0.0)
        journals.note(journal, Note(kind=Kind.WAIT, text="a detail"), 0.0, 0.0)
    assert [record.message for record in caplog.records] == ["c1: healing: the datapath is down"]


class Meter:
    """Stands for an OpenTelemetry meter; every instrument is itself."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, float, dict[str, str]]] = []

    def create_counter(self, name: str, **_: object) -> Instrument:
        return Instrument(self, name)

    create_histogram = create_counter


class Instrument:
    def __init__(self, meter: Meter, name: str) -> None:
        self.meter, self.name = meter, name

    def add(self, value: float, labels: dict[str, str]) -> None:
        self.meter.seen.append((self.name, value, labels))

    record = add


def test_telemetry_counts_and_measures() -> None:
    meter = Meter()
    journals = Journals([telemetry(meter)])
    journal = journals.open("c1", "svc")
    journals.note(journal, Note(kind=Kind.DOWN, text="", why=Why.DATA, detect=0.2), 0.0, 0.0)
    journals.note(journal, Note(kind=Kind.HEALED, text="", moved=True, repair=0.1, attempts=2), 0.0, 0.0)
    found = {name: value for name, value, _ in meter.seen}
    assert found == {"nsm.heal.events": 1, "nsm.heal.detect": 0.2, "nsm.heal.repair": 0.1, "nsm.heal.attempts": 2}
    assert meter.seen[-1][2]["moved"] == "true"


# -- happenings --


@virtual_time
async def test_a_stream_can_be_left_and_the_hub_ended() -> None:
    hub = Happenings()
    async with hub.stream("c1"):
        assert len(hub) == 1
    assert len(hub) == 0
    other = hub.stream("c1")
    hub.publish(Happening(event=Event.UP, id="c1"))
    hub.publish(Happening(event=Event.UP, id="c2"))
    hub.end()
    assert [what.event async for what in other] == [Event.UP]
    hub.publish(Happening(event=Event.CLOSED, id="c1"))
    assert len(hub) == 0


# -- moving --


def answer(endpoint: str, *sources: str, routes: tuple[str, ...] = ()) -> Connection:
    conn = Connection(network_service_endpoint_name=endpoint)
    conn.context.ip_context.src_ip_addrs.extend(sources)
    for prefix in routes:
        conn.context.ip_context.src_routes.add(prefix=prefix)
    return conn


def test_requirements_stay_and_what_was_given_goes() -> None:
    given = Given()
    asked = Request(connection=answer("", "192.168.0.1/32", routes=("10.0.0.0/8",)))
    asked.connection.context.MTU = 1400
    given.asked(asked)
    given.answered(answer("nse-1", "192.168.0.1/32", "10.0.1.1/32", routes=("10.0.0.0/8", "10.0.1.0/32")), anew=False)
    request = Request(connection=answer("nse-1", "192.168.0.1/32", "10.0.1.1/32", routes=("10.0.0.0/8", "10.0.1.0/32")))
    request.connection.context.MTU = 1300
    request.connection.context.dns_context.configs.add(dns_server_ips=["10.0.1.53"])
    select_anew(request)
    given.strip(request, addresses=False)
    ip = request.connection.context.ip_context
    assert list(ip.src_ip_addrs) == ["192.168.0.1/32", "10.0.1.1/32"]
    assert [route.prefix for route in ip.src_routes] == ["10.0.0.0/8"]
    assert request.connection.context.MTU == 1400
    assert not request.connection.context.dns_context.configs
    given.strip(request, addresses=True)
    assert list(request.connection.context.ip_context.src_ip_addrs) == ["192.168.0.1/32"]


def test_addresses_that_the_new_endpoint_took_over_are_not_stale() -> None:
    given = Given()
    given.asked(Request())
    given.answered(answer("nse-1", "10.0.1.1/32"), anew=False)
    assert not given.answered(answer("nse-2", "10.0.1.1/32"), anew=True)
    assert not given.answered(answer("nse-2", "10.0.1.1/32", "2001:db8::1/128"), anew=True)
    assert given.answered(answer("nse-3", "10.0.1.1/32", "2001:db8::1/128", "10.0.3.1/32"), anew=True)
    request = Request(connection=answer("nse-3", "10.0.1.1/32", "10.0.3.1/32"))
    given.tidy(request)
    assert list(request.connection.context.ip_context.src_ip_addrs) == ["10.0.3.1/32"]


def test_errors_are_told_apart() -> None:
    assert is_gone(NoCandidate("endpoint 'nse-1' is not registered"), "nse-1")
    assert is_gone(Unavailable("endpoint 'nse-1' is not registered"), "nse-1")
    assert not is_gone(Unavailable("endpoint 'nse-2' is not registered"), "nse-1")
    assert not is_gone(Unavailable("connection refused"), "nse-1")
    assert not is_gone(TimeoutError(), "nse-1")
    assert not is_fault(Unavailable("away"), external=True)
    assert is_fault(KeyboardInterrupt(), external=True)
    assert not is_fault(KeyboardInterrupt(), external=False)


# -- targets and packets --


def test_a_target_pairs_addresses_of_one_family() -> None:
    conn = Connection(id="c1")
    conn.mechanism.type = "KERNEL"
    conn.mechanism.parameters["name"] = "nsm-1"
    ip = conn.context.ip_context
    ip.src_ip_addrs.extend(["10.0.0.1/32", "2001:db8::1/128"])
    ip.dst_ip_addrs.extend(["10.0.0.2/32", "2001:db8::2/128"])
    ip.src_routes.add(prefix="10.1.0.0/16", nextHop="10.0.0.9")
    target = Target.of(conn, "pod")
    assert target.pairs == (("10.0.0.1", "10.0.0.2"), ("2001:db8::1", "2001:db8::2"))
    assert target.gateways == ("10.0.0.9",)
    assert (target.interface, target.mechanism, target.namespace) == ("nsm-1", "KERNEL", "pod")


@given(st.binary(min_size=2, max_size=64).filter(lambda data: len(data) % 2 == 0))
def test_a_packet_with_its_checksum_sums_to_zero(data: bytes) -> None:
    packet = data + checksum(data).to_bytes(2, "big")
    assert checksum(packet) in (0, 0xFFFF)


@given(st.integers(0, 0xFFFF), st.integers(0, 0xFFFF), st.binary(max_size=64).filter(lambda data: len(data) % 2 == 0))
def test_an_answer_is_read_as_its_request_was_written(identity: int, sequence: int, data: bytes) -> None:
    for family, kind, header in ((socket.AF_INET, 0, bytes([0x46]) + bytes(23)), (socket.AF_INET6, 129, b"")):
        asked = echo_request(family, identity, sequence, data)
        assert echo_reply(family, header + asked) is None
        assert echo_reply(family, header + bytes([kind]) + asked[1:]) == (identity, sequence, data)
    assert checksum(echo_request(socket.AF_INET, identity, sequence, data)) in (0, 0xFFFF)


@given(st.binary(max_size=64))
def test_any_packet_is_read(packet: bytes) -> None:
    for family in (socket.AF_INET, socket.AF_INET6):
        assert echo_reply(family, packet) is None or packet
    assert arp_answers(packet, "10.0.0.1") in (True, False)
    assert advertises(packet, "2001:db8::1") in (True, False)


def test_arp_and_solicitation() -> None:
    question = arp_question(b"\2" * 6, "10.0.0.1", "10.0.0.2")
    assert not arp_answers(question, "10.0.0.2")
    reply = question[:6] + b"\0\2" + b"\4" * 6 + b"\x0a\0\0\2" + b"\2" * 6 + b"\x0a\0\0\1"
    assert arp_answers(reply, "10.0.0.2")
    assert solicited_node("2001:db8::1:2345") == "ff02::1:ff01:2345"


def test_namespaces_by_name_path_and_url() -> None:
    assert url_of("pod") == "file:///run/netns/pod"
    assert url_of("/run/netns/pod") == url_of("file:///run/netns/pod") == "file:///run/netns/pod"
    assert str(url_of("")).endswith("/ns/net")
    assert url_of(7) == 7
    assert here("", lambda: 3) == 3
    with pytest.raises(FailedPrecondition, match="cannot be entered"):
        here("pod", lambda: 3)


# -- checks --


class Script(Probe):
    """Answers what it is told, each check after its own time."""

    def __init__(self, *answers: tuple[float, bool | None]) -> None:
        self.answers = list(answers)
        self.begun: list[float] = []

    def begin(self, runtime: Runtime, target: Target, timeout: float, tell: Tell) -> Cancel:
        self.begun.append(runtime.clock.now())
        after, alive = self.answers.pop(0) if self.answers else (0.0, True)
        return runtime.after(after, lambda: tell(Verdict(alive, "as told"))).cancel


async def watched(script: Script, liveness: Liveness, seconds: float) -> list[tuple[bool | None, float]]:
    """What a regular watch reports, and when."""
    async with rig() as bench:
        reports: list[tuple[bool | None, float]] = []
        regular = Regular(
            bench.runtime,
            script,
            Target(),
            liveness,
            random.Random(1),
            lambda verdict, _: reports.append((verdict.alive, VirtualClock().now())),
        )
        await VirtualClock().advance(seconds)
        regular.stop()
        assert not (await bench.left()).timers
        return reports


@virtual_time
async def test_checks_overlap_and_a_late_failure_does_not_undo_a_newer_success() -> None:
    script = Script((0.5, False), (0.0, True))
    reports = await watched(script, Liveness(interval=0.1, timeout=0.5, jitter=0.0), 1.0)
    assert [alive for alive, _ in reports] == [True]
    assert len(script.begun) >= 9


@virtual_time
async def test_without_overlap_a_slow_check_holds_the_next() -> None:
    script = Script((0.25, True))
    await watched(script, Liveness(interval=0.1, timeout=0.5, overlap=False, jitter=0.0), 0.45)
    assert len(script.begun) == 2


@virtual_time
async def test_jitter_only_shortens() -> None:
    script = Script()
    await watched(script, Liveness(interval=1.0, jitter=0.5), 100.0)
    gaps = [after - before for before, after in zip(script.begun, script.begun[1:], strict=False)]
    assert all(0.48 < gap <= 1.0 for gap in gaps)
    assert max(gaps) - min(gaps) > 0.2


@virtual_time
async def test_failures_must_be_in_a_row() -> None:
    script = Script((0.0, False), (0.0, True), (0.0, False), (0.0, False))
    reports = await watched(script, Liveness(interval=0.1, failures=2, jitter=0.0), 1.0)
    assert [alive for alive, _ in reports] == [True, False, True]


@virtual_time
async def test_a_check_that_cannot_be_made_is_neither() -> None:
    reports = await watched(Script((0.0, None), (0.0, None)), Liveness(interval=0.1, jitter=0.0), 0.25)
    assert [alive for alive, _ in reports] == [None]


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [((True, True), True), ((True, False), False), ((None, True), True), ((None, None), None), ((None, False), False)],
)
@virtual_time
async def test_several_probes_as_one(answers: tuple[bool | None, ...], verdict: bool | None) -> None:
    probe = All(*(Script((0.1 * number, alive)) for number, alive in enumerate(answers)))
    async with rig() as bench:
        told: list[Verdict] = []
        probe.begin(bench.runtime, Target(), 1.0, told.append)
        await VirtualClock().advance(1.0)
        assert [one.alive for one in told] == [verdict]


@virtual_time
async def test_an_application_that_raises_or_hangs_gives_no_sign_of_life() -> None:
    async def broken(conn: Connection) -> bool:
        raise ConnectionError("no route")

    async def hangs(conn: Connection) -> bool:
        await VirtualClock().advance(100)
        return True

    async with rig() as bench:
        for alive in (broken, hangs):
            told: list[Verdict] = []
            Ask(alive).begin(bench.runtime, Target(), 0.5, told.append)
            await VirtualClock().advance(1.0)
            assert [one.alive for one in told] == [False]
        cancelled: list[Verdict] = []
        stop = Ask(hangs).begin(bench.runtime, Target(), 0.5, cancelled.append)
        await settled()
        stop()
        await VirtualClock().advance(1.0)
        assert not cancelled
