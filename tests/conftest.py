# SPDX-License-Identifier: Apache-2.0
"""The leak check round every test, and which tests run.

Does:  after each test and the end of its fixtures, nothing may be left that was not there before: asyncio tasks,
       connections (both ends, where both are in this process), descriptors, threads, and network interfaces and named
       namespaces that bear the mark of this run. Tests marked `long` run with `--long`, or when `-m` or a test's own
       name chooses them. Hypothesis draws the same examples in every run; `--hypothesis-profile=fuzz` draws others, and
       the end of the run prints how to repeat them.
Place: pytest loads it for all tests.
State: none; what was there before is kept on the test's item.

A test that must leave something behind says why: `@pytest.mark.leaks("reason")`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from collections.abc import AsyncGenerator, Generator

import pytest
from hypothesis import HealthCheck, settings

from nsm_sdk.testing import Holdings, connected_sockets, settled
from nsm_sdk.testing.leaks import lines
from tests.run import MARK

_TRIES = 20
_BEFORE = pytest.StashKey[Holdings]()
_LEFT_OUT = pytest.StashKey[int | str]()

# Before any test module is imported: `settings` of a module are made from the profile that is loaded then. How fast an
# example is drawn or runs depends on what else the machine does, so no example fails for that.
settings.register_profile(
    "repeatable",
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("fuzz", settings.get_profile("repeatable"), derandomize=False)
settings.load_profile("repeatable")

# Interfaces of other programs come and go on a shared machine; where nothing else runs, all count.
_OURS = ("",) if os.environ.get("NSM_TESTS_ALONE") else (MARK, f"-{os.getpid()}-")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests that are marked `long`")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "leaks(reason): the test leaves something behind, and why that is right")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = config.getoption("--long") or "long" in config.getoption("-m")
    if chosen or any("::" in argument for argument in config.args):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if not item.get_closest_marker("long")]
    config.stash[_LEFT_OUT] = len(left_out)
    config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    # With workers it is they that collect; how many were left out is not known here then.
    number = config.stash.get(_LEFT_OUT, "Some" if getattr(config.option, "numprocesses", None) else 0)
    if number and "long" not in config.getoption("-m"):
        terminalreporter.write_line(f"{number} long tests were left out; `make test-long` runs them.")
    if terminalreporter.stats.get("failed") and config.getoption("--hypothesis-profile") == "fuzz":
        seed = config.getoption("--hypothesis-seed")
        for report in terminalreporter.stats["failed"]:
            terminalreporter.write_line(f"Repeat with: make fuzz SEED={seed} TESTS='{report.nodeid}'")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let grpc.aio open what it keeps for the whole process now, so that no test is blamed for it."""
    if "grpc.aio" in sys.modules:
        sys.modules["grpc.aio"].init_grpc_aio()


@pytest.fixture(autouse=True)
def _nothing_left(request: pytest.FixtureRequest) -> None:
    """Notes what there is before the test; `pytest_runtest_teardown` compares."""
    if request.node.get_closest_marker("leaks"):
        return
    if asyncio.iscoroutinefunction(getattr(request.node, "obj", None)):
        request.getfixturevalue("_no_task_left")
    request.node.stash[_BEFORE] = Holdings.now()


def _of_grpc(task: asyncio.Task[object]) -> bool:
    """Whether a task is one of grpc.aio's own."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is None or "/grpc/" in code.co_filename


@pytest.fixture
async def _no_task_left() -> AsyncGenerator[None, None]:
    """On the loop of the test itself; holds no scope and no task group.

    Connections are looked at here, too: what the loop of a test still knows is closed with it, and nobody would see.
    """
    before, sockets = asyncio.all_tasks(), connected_sockets()
    yield
    this = asyncio.current_task()
    left = {task for task in asyncio.all_tasks() - before if task is not this}
    if left:
        await settled()
        left = {task for task in left if not task.done()}
    for _ in range(_TRIES):
        if not left or not all(map(_of_grpc, left)):
            break
        # grpc.aio ends the tasks of a cancelled call when its own thread has told it so; nobody else is waited for.
        await asyncio.sleep(0.05)
        left = {task for task in left if not task.done()}
    if left:
        pytest.fail("tasks left behind: " + "; ".join(lines(left)))
    for turn in range(_TRIES):
        if not connected_sockets() - sockets:
            return
        # The far end of a connection hears of its end a turn later; grpc.aio closes what it has in its own thread.
        await settled()
        if turn:
            gc.collect()
            await asyncio.sleep(0.05)
    if kept := connected_sockets() - sockets:
        pytest.fail(f"connections left behind: {', '.join(sorted(kept))}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    yield
    before = item.stash.get(_BEFORE, None)
    if before is None:
        return
    del item.stash[_BEFORE]
    found = Holdings.now().new_since(before, ours=_OURS, patience=0.0)
    if found:
        # Cycles may hold what a finished test no longer uses; only what survives a collection is a leak.
        gc.collect()
        found = Holdings.now().new_since(before, ours=_OURS, patience=0.0)
    for _ in range(_TRIES):
        if not found:
            break
        # gRPC closes what was released in threads of its own.
        time.sleep(0.05)
        found = Holdings.now().new_since(before, ours=_OURS, patience=0.0)
    if found:
        pytest.fail("left behind: " + "; ".join(found))
