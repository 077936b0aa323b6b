# SPDX-License-Identifier: Apache-2.0
"""One thread for all netlink of one forwarder.

Does:  runs functions on a Kernel one after the other and hands the results back to the event loop, which never waits in
       the kernel (deleting a link takes 20 ms there). Sockets of namespaces unused for a moment are closed.
Place: the Netlink port for real kernels.
State: the thread, started by the first job, ended by `aclose`.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

from nsm_sdk.mechanisms.ports import Kernel
from nsm_sdk.netlink.kernel import KernelAdapter
from nsm_sdk.netlink.watch import SocketWatch

T = TypeVar("T")
_IDLE = 1.0
_Job = tuple[Callable[[Kernel], Any], asyncio.AbstractEventLoop, "asyncio.Future[Any]"]


class NetlinkThread:
    """Implements the Netlink port. `idle`: seconds after which an unused namespace is let go."""

    def __init__(self, *, name: str = "nsm-netlink", idle: float = _IDLE) -> None:
        self._name = name
        self._idle = idle
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def run(self, fn: Callable[[Kernel], T]) -> T:
        """Runs `fn` on the thread. A caller that is cancelled does not stop a function that has begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, args=(KernelAdapter(),), name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._jobs.put((fn, loop, future))
        return await future

    async def watch(self, url: str | int) -> SocketWatch:
        """Events of a namespace from now on; the caller closes it."""
        return await SocketWatch.open(url)

    async def aclose(self) -> None:
        """Ends the thread after the jobs that are queued; a later job starts another."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(thread.join)

    def _work(self, kernel: KernelAdapter) -> None:
        oldest: float | None = None
        try:
            while True:
                try:
                    job = self._jobs.get(timeout=self._idle if oldest is not None else None)
                except queue.Empty:
                    oldest = kernel.evict(time.monotonic() - self._idle)
                    continue
                if job is None:
                    return
                self._do(kernel, job)
                del job
                now = time.monotonic()
                if oldest is None or now - oldest > 2 * self._idle:
                    oldest = kernel.evict(now - self._idle)
        finally:
            kernel.close()

    @staticmethod
    def _do(kernel: KernelAdapter, job: _Job) -> None:
        fn, loop, future = job
        if future.cancelled():
            return
        result: Any = None
        failure: BaseException | None = None
        try:
            result = fn(kernel)
        except BaseException as error:
            failure = error

        def settle() -> None:
            if future.done():
                return
            if failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)

        # a loop that has ended needs no answer
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle)
