# SPDX-License-Identifier: Apache-2.0
"""The two programs of the README, as processes in a mesh of processes: without privileges, and with real packets."""

from __future__ import annotations

from pathlib import Path

import pytest

from nsm_sdk.lab import PROGRAMS, PROGRAMS_SIMULATED, Cluster, Mode, Pod
from tests.docs.commands import ROOT, Terminal
from tests.run import unique

MODES = [
    pytest.param(PROGRAMS_SIMULATED, id="simulated"),
    pytest.param(PROGRAMS, id="namespaces", marks=pytest.mark.netns),
]


def _inside(pod: Pod, mode: Mode) -> tuple[str, ...]:
    """The words before a command that put it into the pod."""
    return () if mode is PROGRAMS_SIMULATED else ("nsenter", f"--net={pod.url.removeprefix('file://')}")


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
async def test_both_programs(mode: Mode, tmp_path: Path) -> None:
    if reason := mode.why_not():
        pytest.skip(reason)
    async with Cluster(mode, name=unique()) as cluster, Terminal(tmp_path) as terminal:
        node = await cluster.node()
        manager = node.manager.url
        blue, green = await node.pod("blue"), await node.pod("green")
        folder = "examples/first_endpoint"
        nse = await terminal.run(
            *_inside(blue, mode), "python", f"{folder}/nse.py", manager, f"unix://{cluster.folder}/my-nse"
        )
        await nse.says("serving unix://")
        nsc = await terminal.run(*_inside(green, mode), "python", f"{folder}/nsc.py", manager)
        assert await nsc.ended() == 0
        assert nsc.lines == [
            "nsm-1 ['172.16.0.1/32'] -> ['172.16.0.0/32'] "
            f"over ['my-nsc', '{node.manager.name}', '{node.forwarder.name}', 'my-nse']",
            "hello my-nsc, this is my-nse",
        ]
        assert nsc.stderr == ""

        # It prints and leaves; another client stays, for packets.
        other = await node.client("other", pod=green)
        conn = await other.request("kernel://hello/nsm-1")
        assert conn.context.extra_context["greeting"] == "hello other, this is my-nse"
        assert list(conn.context.ip_context.dst_ip_addrs) == ["172.16.0.0/32"]
        assert (await other.ping(conn)).ok
        if mode is PROGRAMS:
            back = await blue.ping("172.16.0.1", source="172.16.0.0")
            assert back.ok
            assert [link.name for link in await green.links()] == ["nsm-1"]
        await other.close(conn)
        assert await green.links() == await blue.links() == []
        assert nse.stderr == ""


def test_they_fit_on_a_screen() -> None:
    for name, most in (("nse.py", 21), ("nsc.py", 10)):
        lines = (ROOT / "examples" / "first_endpoint" / name).read_text().splitlines()
        assert len([line for line in lines if line and not line.startswith("# SPDX")]) <= most
    assert len((ROOT / "README.md").read_text().splitlines()) <= 95
