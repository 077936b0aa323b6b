# SPDX-License-Identifier: Apache-2.0
"""The command `nsm`.

Does:  hands the process over to the command line; a signal that comes before a role runs ends it with status 0.
Place: entry point of the package.
State: none.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""What tells a program to leave."""


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    os._exit(0)


def main() -> None:
    """Run the command line of this process."""
    if sys.argv[1:2] == ["run"]:
        # Until a role runs, nothing has been opened, and there is nothing to close.
        for number in SIGNALS:
            signal.signal(number, _leave)
    from nsm_sdk.cli.app import app

    app(prog_name="nsm")


if __name__ == "__main__":
    main()
