# SPDX-License-Identifier: Apache-2.0
"""Every case of h2spec, a conformance tester of HTTP/2 servers, against a listener of ours."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nsm_sdk.transport import listen
from tests.transport.adapters import role

MODULE = "github.com/summerwind/h2spec/cmd/h2spec@latest"
PATIENCE = 8
"""Seconds that the tester waits for an answer; one case opens more streams than we allow."""

ON_PURPOSE: dict[str, str] = {}
"""Cases that fail, by their titles, and the reason."""


async def run(*command: str, **environment: str) -> tuple[int, str]:
    """Run a command to its end: exit status and output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        getattr(process, "_transport").close()  # noqa: B009
        await asyncio.sleep(0)
    return process.returncode or 0, output.decode(errors="replace")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("go") is None, reason="Go is not installed: h2spec cannot be built")
async def test_every_case_passes_or_fails_on_purpose(tmp_path: Path) -> None:
    status, output = await run("go", "install", MODULE, GOBIN=str(tmp_path), GOFLAGS="-mod=mod")
    if status:
        pytest.skip(f"h2spec cannot be built here: {output[-300:]}")
    made, _ = role()
    report = tmp_path / "report.xml"
    async with made.serving(listen=[listen("tcp://127.0.0.1:0")]) as running:
        port = running.urls[0].rpartition(":")[2]
        _, output = await run(str(tmp_path / "h2spec"), "--strict", "-p", port, "-o", str(PATIENCE), "-j", str(report))
    cases = list(ElementTree.parse(report).iter("testcase"))
    assert len(cases) > 100, output[-2000:]
    failed = {
        f"{case.get('package')}: {case.get('classname')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None
    }
    assert failed == set(ON_PURPOSE), output[-5000:]
