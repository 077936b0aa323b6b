# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a mesh of programs on one machine.

Does:  links set down; packets dropped by nftables, in a pod or towards the port of a hop; a link with little
       bandwidth; programs that stand still, or get only a share of their time. Each is taken back at the end of its
       block, also after a failure.
Place: the demo of healing, the matrix of faults. Needs root, `nft` and `tc`.
State: tables of nftables with a name of their own, while a block runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import signal
import socket
import struct
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import anyio

from nsm_sdk.errors import FailedPrecondition, NsmError
from nsm_sdk.lab.hop import Hop
from nsm_sdk.lab.pod import Pod
from nsm_sdk.lab.program import ProgramHop
from nsm_sdk.netlink import namespace_path, run_inside

RUNS = 0.01
STANDS = 0.06
"""How long, in seconds, a program that is slowed down runs and stands still in turn."""
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


async def set_link(pod: Pod, name: str, *, up: bool) -> None:
    """Set an interface up or down, as somebody by hand would."""

    def work() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            asked = struct.pack("=16sH14x", name.encode(), 0)
            (flags,) = struct.unpack_from("=H", fcntl.ioctl(channel, _SIOCGIFFLAGS, asked), 16)
            flags = flags | _IFF_UP if up else flags & ~_IFF_UP
            fcntl.ioctl(channel, _SIOCSIFFLAGS, struct.pack("=16sH14x", name.encode(), flags))

    await asyncio.to_thread(run_inside, namespace_path(pod.url), work)


@asynccontextmanager
async def dropping(pod: Pod, rule: str = "drop") -> AsyncGenerator[None, None]:
    """Every packet into the pod, and out of it, meets that rule of nftables."""
    async with _table(pod.url, [("input", rule), ("output", rule)]):
        yield


@asynccontextmanager
async def cut_off(hop: Hop) -> AsyncGenerator[None, None]:
    """No packet reaches the port of a hop, and none comes from there; for meshes over TCP."""
    port = int(hop.url.rpartition(":")[2])
    async with _table("", [("input", f"tcp dport {port} drop"), ("input", f"tcp sport {port} drop")]):
        yield


@asynccontextmanager
async def narrow(pod: Pod, interface: str) -> AsyncGenerator[None, None]:
    """What leaves the pod by that interface waits in a queue for a bandwidth that is too small."""
    await _run(pod.url, ["tc", "qdisc", "add", "dev", interface, "root"], "tbf rate 48kbit burst 2k latency 200ms")
    try:
        yield
    finally:
        # The link may have been made anew, without it.
        with contextlib.suppress(NsmError):
            await _run(pod.url, ["tc", "qdisc", "del", "dev", interface, "root"])


def stand_still(hop: Hop) -> None:
    """As SIGSTOP does."""
    _send(hop, signal.SIGSTOP)


def go_on(hop: Hop) -> None:
    """The end of `stand_still`; fine for a program that runs, or has ended."""
    _send(hop, signal.SIGCONT)


def _send(hop: Hop, number: signal.Signals) -> None:
    assert isinstance(hop, ProgramHop), "only a program can be sent signals"
    if hop.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(hop.pid, number)


@asynccontextmanager
async def slowed(hop: Hop) -> AsyncGenerator[None, None]:
    """The program gets a seventh of its time."""

    async def run() -> None:
        while True:
            stand_still(hop)
            await asyncio.sleep(STANDS)
            go_on(hop)
            await asyncio.sleep(RUNS)

    task = asyncio.create_task(run(), name=f"slow {hop.name}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        go_on(hop)


@asynccontextmanager
async def _table(url: str, rules: Sequence[tuple[str, str]]) -> AsyncGenerator[None, None]:
    name = f"nsm_{secrets.token_hex(4)}"
    chains = "\n".join(
        f"chain c{number} {{\ntype filter hook {hook} priority 0;\n{rule}\n}}"
        for number, (hook, rule) in enumerate(rules)
    )
    await _run(url, ["nft", "-f", "-"], given=f"table inet {name} {{\n{chains}\n}}\n")
    try:
        yield
    finally:
        # The pod may be gone, and the table with it.
        with anyio.CancelScope(shield=True), contextlib.suppress(NsmError):
            await _run(url, ["nft", "delete", "table", "inet", name])


async def _run(url: str, command: list[str], more: str = "", given: str = "") -> None:
    def work() -> None:
        # A process starts in the namespace of the thread that starts it.
        done = subprocess.run(
            [*command, *more.split()], input=given, text=True, capture_output=True, check=False, timeout=10
        )
        if done.returncode:
            raise FailedPrecondition(
                f"{' '.join(command[:2])} failed: {done.stderr.strip()[:200]}",
                hint="see that it is installed; run as root",
            )

    try:
        if url:
            await asyncio.to_thread(run_inside, namespace_path(url), work)
        else:
            await asyncio.to_thread(work)
    except OSError as error:
        raise FailedPrecondition(f"cannot run {command[0]}: {error}", hint="install it") from error
