# SPDX-License-Identifier: Apache-2.0
"""The forwarder's records, and the sweep that follows a start.

Does:  records come back as they were; a folder that cannot be used is told; after the time for orphans what nobody has
       claimed goes, and what was claimed stays.
Place: Ledger; KernelDatapath as a service, in virtual time on a kernel in memory.
State: a folder of one test.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nsm_sdk.api import Connection, Mechanism
from nsm_sdk.core import Role
from nsm_sdk.errors import FailedPrecondition
from nsm_sdk.mechanisms import CLIENT_SIDE, ENDPOINT_SIDE, KernelDatapath, Ledger, Record, RecordedEnd
from nsm_sdk.mechanisms.clients import Client
from nsm_sdk.mechanisms.model import SetLink
from nsm_sdk.mechanisms.ports import Joint
from nsm_sdk.netlink import FakeNetlink
from nsm_sdk.testing import current_clock, virtual_time

A, B = "file:///run/netns/a", "file:///run/netns/b"
_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
_ends = st.builds(
    RecordedEnd,
    role=st.sampled_from([CLIENT_SIDE, ENDPOINT_SIDE]),
    url=_texts,
    dev=st.integers(0, 100),
    ino=st.integers(0, 2**63),
    name=_texts,
    mac=_texts,
    alias=_texts,
    tables=st.just((0, 0)) | st.just((1 << 30, (1 << 30) + 256)),
)
_records = st.builds(Record, connection=_texts, forwarder=_texts, ends=st.tuples(_ends, _ends))


@pytest.fixture
def switches_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(records=st.lists(_records, max_size=5, unique_by=lambda one: one.connection))
def test_records_come_back(tmp_path: Path, records: list[Record]) -> None:
    folder = tmp_path / "state"
    ledger = Ledger(folder)
    for record in records:
        ledger.put(record)
        ledger.put(record)
    again = Ledger(folder)
    assert sorted(again.all(), key=repr) == sorted(records, key=repr)
    for record in records:
        assert again.get(record.connection) == record
        again.forget(record.connection)
        again.forget(record.connection)
    assert not list(folder.iterdir())
    assert Ledger(folder).all() == []


def test_others_may_look_while_the_netlink_thread_writes(switches_often: None) -> None:
    ledger, client = Ledger(None), Client("a", "a-0", "spiffe://test/a", 2)
    records = [Record(connection="c1", forwarder="f", ends=(), client=client, until=60.0 * turn) for turn in range(9)]
    ledger.put(records[0])
    ended = threading.Event()

    def write() -> None:
        while not ended.is_set():
            for record in records:
                ledger.put(record)
                ledger.put(Record(connection="c2", forwarder="f", ends=(), client=client))
                ledger.forget("c2")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(20_000):
            assert ledger.get("c1") is not None
            assert "c1" in [record.connection for record in ledger.of(client)]
    finally:
        ended.set()
        thread.join()


def test_a_folder_that_cannot_be_used(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(FailedPrecondition, match="NSM_STATE_DIR"):
        Ledger(blocked / "state")
    ledger = Ledger(tmp_path / "state")
    (tmp_path / "state").rmdir()
    end = RecordedEnd(role=CLIENT_SIDE, url="", dev=0, ino=0, name="", mac="", alias="")
    with pytest.raises(FailedPrecondition, match="NSM_STATE_DIR"):
        ledger.put(Record(connection="c", forwarder="f", ends=(end,)))
    assert ledger.get("c") is None


def joint(number: int) -> Joint:
    conn = Connection(id=f"c-{number}", payload="IP")
    conn.path.path_segments.add(name="nsc", id=f"s-{number}")
    near, far = (
        Mechanism(type="KERNEL", parameters={"inodeURL": url, "name": f"{side}-{number}"})
        for side, url in (("near", A), ("far", B))
    )
    return Joint(connection=conn, near=near, far=far)


@virtual_time
async def test_orphans_go_after_their_time(tmp_path: Path) -> None:
    netlink = FakeNetlink()
    a = netlink.add_namespace(A)
    netlink.add_namespace(B)

    def datapath() -> KernelDatapath:
        return KernelDatapath(netlink, name="f", state=tmp_path, orphan_timeout=600.0)

    first = datapath()
    async with Role("forwarder", services=[first]).serving(clock=current_clock()):
        await first.join(joint(1))
        await first.join(joint(2))
    before = {link.name: link.index for link in a.links()}
    second = datapath()
    async with Role("forwarder", services=[second]).serving(clock=current_clock()):
        assert sorted(second.ids()) == ["c-1", "c-2"]
        await asyncio.sleep(300)
        await second.join(joint(1))
        assert {link.name: link.index for link in a.links()} == before
        await asyncio.sleep(301)
        assert {link.name: link.index for link in a.links()} == {"near-1": before["near-1"]}
        assert list(second.ids()) == ["c-1"]
        netlink.remove_namespace(B)
        assert not a.links()
        netlink.add_namespace(B)
        await second.join(joint(3))
        [link] = a.links()
        a.apply(link.index, [SetLink(alias=link.alias.replace("c-3", "by-hand"))])
        await asyncio.sleep(600)
        assert not a.links()
        await second.part(joint(1).connection)
        await second.part(joint(3).connection)
        assert not list(second.ids())
