# SPDX-License-Identifier: Apache-2.0
"""A mesh over sockets in a process where `sniffio` is installed, as trio, httpx and many others bring it along.

Does:  with it, anyio knows which event loop runs only inside a task. A stand-in of the same contract is used where the
       real one is not installed; a bare callback of the loop that starts anything of anyio's fails, or warns.
Place: python -m tests.mesh.test_sniffing, started by the test.
State: a process per test.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import sys
from pathlib import Path

import pytest

from nsm_sdk.core import Role
from nsm_sdk.lab import INPROC, TCP, UNIX, Cluster
from tests.mesh.modes import URL

ROOT = Path(__file__).parents[2]
MODES = {"inproc": INPROC, "unix": UNIX, "tcp": TCP}
STAND_IN = """
import asyncio, contextvars, threading

class AsyncLibraryNotFoundError(RuntimeError):
    pass

class _Local(threading.local):
    name = None

thread_local = _Local()
current_async_library_cvar = contextvars.ContextVar("sniffio", default=None)

def current_async_library():
    found = thread_local.name or current_async_library_cvar.get()
    if found is None:
        try:
            found = "asyncio" if asyncio.current_task() is not None else None
        except RuntimeError:
            pass
    if found is None:
        raise AsyncLibraryNotFoundError("not inside a task")
    return found
"""


async def in_a_mesh(mode: str) -> None:
    """Connect, refresh, close, through every hop of a node."""
    async with Cluster(MODES[mode], name="sniff") as cluster:
        node = await cluster.node()
        await node.endpoint("nse-1", prefix="172.16.0.0/24")
        client = await node.client("nsc-1")
        conn = await client.request(URL)
        conn = await client.refresh(conn)
        await client.close(conn)


async def from_callbacks() -> None:
    """What a role starts for a bare callback of the loop runs, and ends with the role."""
    loop, ran = asyncio.get_running_loop(), asyncio.Event()

    async def call(deadline: float) -> str:
        return "returned"

    async def task() -> None:
        ran.set()

    async with Role("hop").serving() as running:
        runtime = running.runtime
        result = loop.create_future()
        loop.call_soon(lambda: runtime.spawn(task, "task"))
        loop.call_soon(lambda: result.set_result(runtime.launch(call, 5.0, "a call")[0]))
        runtime.after(0.0, lambda: runtime.spawn(task, "another"))
        assert await (await result) == "returned"
        await ran.wait()


async def _in_a_process(what: str, folder: Path) -> None:
    paths = [str(ROOT)]
    if importlib.util.find_spec("sniffio") is None:
        (folder / "sniffio.py").write_text(STAND_IN)
        paths.insert(0, str(folder))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-m",
        "tests.mesh.test_sniffing",
        what,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=ROOT,
    )
    said, _ = await process.communicate()
    getattr(process, "_transport").close()  # noqa: B009
    await asyncio.sleep(0)
    assert (process.returncode, said.decode()) == (0, "sniffio\n")


@pytest.mark.parametrize("what", [*MODES, "callbacks"])
async def test_where_sniffio_is_installed(what: str, tmp_path: Path) -> None:
    await _in_a_process(what, tmp_path)


if __name__ == "__main__":
    print("sniffio" if "sniffio" in sys.modules else "alone")  # noqa: T201  this is how the test is told
    asyncio.run(from_callbacks() if sys.argv[1] == "callbacks" else in_a_mesh(sys.argv[1]))
