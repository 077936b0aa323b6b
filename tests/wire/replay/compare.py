# SPDX-License-Identifier: Apache-2.0
"""What counts as equal between a recorded message and ours.

Does:  knows which recorded ids and addresses stand for which of ours, writes recorded messages anew with ours, and
       compares: tokens by their subject, times within a few seconds, absent messages as empty ones.
Place: the stage and its peers.
State: `Translation`: pairs learnt while a recording is played.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from nsm_sdk.api import Connection, Request
from nsm_sdk.api.tokens import subject

NEAR = 20.0
"""Seconds by which times may differ: a replay waits for nobody, and a recording did."""
_TIMES = frozenset({"expires", "expirationTime", "initialRegistrationTime"})


class Translation:
    """Recorded texts and what they are called here."""

    def __init__(self) -> None:
        self._here: dict[str, str] = {}

    def learn(self, recorded: str, here: str) -> None:
        """`recorded` is called `here`; what was learnt first holds no longer."""
        if recorded:
            self._here[recorded] = here

    def learn_ids(self, recorded: Message, here: Message, hop: str) -> None:
        """The ids that `hop` has given: those of its own segments."""
        theirs, ours = connection_of(recorded), connection_of(here)
        if theirs is None or ours is None:
            return
        for one, other in zip(theirs.path.path_segments, ours.path.path_segments, strict=False):
            if one.name == other.name == hop:
                self.learn(one.id, other.id)

    def text(self, recorded: str) -> str:
        """One text, as it is here."""
        return self._here.get(recorded, recorded)

    def here(self, recorded: Message) -> Any:
        """A recorded message with our ids and addresses."""
        written = self._walk(json_format.MessageToDict(recorded))
        return json_format.ParseDict(written, type(recorded)())

    def _walk(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self.text(key): self._walk(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._walk(inner) for inner in value]
        return self.text(value) if isinstance(value, str) else value


def connection_of(message: Message) -> Connection | None:
    """The connection in a message of the connection family."""
    if isinstance(message, Request):
        return message.connection
    return message if isinstance(message, Connection) else None


def plain(message: Message, ignore: Iterable[str] = ()) -> Any:
    """A message as values to compare; `ignore` names fields that do not count, in JSON's spelling."""
    return _plain(json_format.MessageToDict(message), frozenset(ignore))


def _plain(value: Any, ignore: frozenset[str]) -> Any:
    if isinstance(value, list):
        return [_plain(inner, ignore) for inner in value]
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, inner in value.items():
        if key in ignore:
            continue
        if key == "token":
            found[key] = f"token of {subject(inner)}"
        elif key in _TIMES:
            found[key] = datetime.fromisoformat(inner).timestamp()
        elif (told := _plain(inner, ignore)) != {}:
            found[key] = told
    return found


def differences(theirs: Any, ours: Any, where: str = "") -> list[str]:
    """Where two plain values differ."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        found: list[str] = []
        for key in sorted({*theirs, *ours}):
            found += differences(theirs.get(key), ours.get(key), f"{where}.{key}")
        return found
    if isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        found = []
        for at, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            found += differences(one, other, f"{where}[{at}]")
        return found
    if isinstance(theirs, float) and isinstance(ours, float) and abs(theirs - ours) <= NEAR:
        return []
    return [] if theirs == ours else [f"{where}: recorded {theirs!r}, ours {ours!r}"]


def path_of(text: str | None) -> Any:
    """The `path` metadata of a registry call: index, and whose tokens."""
    if text is None:
        return None
    path = json.loads(text)
    return path["Index"], [subject(segment["token"]) for segment in path["PathSegments"] or ()]
