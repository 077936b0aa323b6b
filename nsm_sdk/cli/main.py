# SPDX-License-Identifier: Apache-2.0
"""The command `nsm`.

Does:  `run`, `doctor`, `chain show`, `explain`, `demo`, `lab`. Each imports what it needs when it is used; `run` goes
       past the command line library altogether, because every container start pays for its import.
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
        from nsm_sdk.cli.run import main as run

        sys.exit(run(sys.argv[2:]))
    from nsm_sdk.cli.app import app

    app()


if __name__ == "__main__":
    main()
