# SPDX-License-Identifier: Apache-2.0
"""`nsm explain`.

Does:  asks the admin socket of a running program, and prints what it says of a connection in words.
Place: a command.
State: none.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nsm_sdk.api.addresses import MAX_SOCKET_PATH, SHORTER

PATIENCE = 10.0
"""Seconds that the program gets to answer."""


def ask(path: Path, command: str) -> list[dict[str, Any]]:
    """What the program at the socket answers. OSError if nobody is there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(PATIENCE)
        channel.connect(str(path))
        channel.sendall(command.encode("utf-8", "replace") + b"\n")
        with channel.makefile("rb") as lines:
            return [json.loads(line) for line in lines]


def explain(path: Path, id: str, *, as_json: bool = False) -> int:
    """Print the journal of the connection `id`, or, without one, what the program has; answers the exit status."""
    if (length := len(os.fsencode(path))) > MAX_SOCKET_PATH:
        print(
            f"nsm explain: --socket (NSM_ADMIN_SOCKET) {str(path)!r} has {length} bytes, but a unix socket path at "
            f"most {MAX_SOCKET_PATH}; {SHORTER}",
            file=sys.stderr,
        )
        return 2
    try:
        found = ask(path, f"journal {id}" if id else "connections")
        if not id:
            found += ask(path, "registrations")
    except (OSError, ValueError) as error:
        print(f"nsm explain: nobody answers at {path}: {error}", file=sys.stderr)
        return 1
    failed = [item["error"] for item in found if set(item) <= {"error", "known", "commands"} and "error" in item]
    for text in failed:
        print(f"nsm explain: {text}", file=sys.stderr)
    if failed:
        return 1
    for item in found:
        print(json.dumps(item, ensure_ascii=False) if as_json else sentence(item))
    return 0


def sentence(item: Mapping[str, Any]) -> str:
    """One event, connection or registration as a line for people."""
    words = []
    if isinstance(at := item.get("time"), (int, float)):
        words.append(time.strftime("%H:%M:%S", time.localtime(at)) + f".{int(at % 1 * 1000):03d}")
    if event := item.get("event"):
        words.append(f"{event:10}")
    rest = {
        name: value for name, value in item.items() if name not in ("time", "event") and value not in ("", [], None)
    }
    words += [
        f"{name}={', '.join(map(str, value)) if isinstance(value, list) else value}" for name, value in rest.items()
    ]
    return "  ".join(words)
