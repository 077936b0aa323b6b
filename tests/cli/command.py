# SPDX-License-Identifier: Apache-2.0
"""The command `nsm`, run in this process."""

from __future__ import annotations

from nsm_sdk.cli.app import app


def nsm(*words: str) -> int:
    """Run `nsm` with these words; returns the exit status."""
    try:
        app(list(words), prog_name="nsm")
    except SystemExit as left:
        return int(left.code or 0)
    return 0
