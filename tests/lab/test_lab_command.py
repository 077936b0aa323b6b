# SPDX-License-Identifier: Apache-2.0
"""`nsm lab` as a stranger runs it."""

from __future__ import annotations

import asyncio
import signal
import sys


async def test_it_stays_until_it_is_told_to_go() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nsm_sdk.cli.main", "lab", "--simulated", "--clients", "2", "--endpoints", "2",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    seen = ""
    while "Ctrl-C" not in seen:
        line = (await process.stdout.readline()).decode()
        assert line, "it ended by itself"
        seen += line
    for word in ("nse-1", "nse-2", "nsc-1", "nsc-2", "nsm-1", "172.16."):
        assert word in seen
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    _, errors = await process.communicate()
    assert process.returncode == 130
    assert "cleaned up" in errors.decode()
