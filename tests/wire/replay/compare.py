# SPDX-License-Identifier: Apache-2.0
"""What counts as equal between a recorded message and ours.

Does:  knows which recorded ids and addresses stand for which of ours, writes recorded messages anew with ours, and
       compares: tokens by their subject, times within a few seconds, absent messages as empty ones.
Place: the stage and its peers.
State: `Translation`: pairs learnt while a recording is played.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from nsm_sdk.api import Connection, Request
from nsm_sdk.api.tokens import EXPIRES_KEY, TOKEN_KEY, subject

NEAR = 20.0
"""Seconds by which times may differ: a replay waits for nobody, and a recording did."""
_TIMES = frozenset({"expires", "expirationTime", "initialRegistrationTime"})


class Translation:
    """Recorded texts and what they are called here."""

    def __init__(self, later: float = 0.0) -> None:
        """`later`: seconds by which recorded times are moved."""
        self._here: dict[str, str] = {}
        self._later = later

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

    def metadata(self, recorded: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        """Recorded metadata, as it is sent here."""
        if not self._later:
            return tuple(recorded.items())
        moved = dict(recorded)
        if TOKEN_KEY in moved:
            moved[TOKEN_KEY] = self._token(moved[TOKEN_KEY])
        if EXPIRES_KEY in moved:
            moved[EXPIRES_KEY] = self._time(moved[EXPIRES_KEY])
        if "path" in moved:
            path = json.loads(moved["path"])
            path["PathSegments"] = [{"token": self._token(one["token"])} for one in path["PathSegments"] or ()] or None
            moved["path"] = json.dumps(path, separators=(",", ":"))
        return tuple(moved.items())

    def _walk(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {self.text(key): self._walk(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            return [self._walk(inner, name) for inner in value]
        if not isinstance(value, str):
            return value
        if name == "token":
            return self._token(value)
        return self._time(value) if name in _TIMES else self.text(value)

    def _time(self, text: str) -> str:
        if not self._later:
            return text
        at = datetime.fromisoformat(text).timestamp() + self._later
        return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")

    def _token(self, text: str) -> str:
        """The token as if it had been made later; nobody here verifies it."""
        if not self._later or text.count(".") != 2:
            return text
        header, body, signature = text.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        claims["exp"] += int(self._later)
        moved = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return f"{header}.{moved}.{signature}"


def connection_of(message: Message) -> Connection | None:
    """The connection in a message of the connection family."""
    if isinstance(message, Request):
        return message.connection
    return message if isinstance(message, Connection) else None


def subject_of(message: Any) -> tuple[str, ...]:
    """What a call is about: the first hop's name and id, or an entry's name."""
    conn = connection_of(message)
    if conn is None:
        return (message.name,)
    segments = conn.path.path_segments
    return (segments[0].name, segments[0].id) if segments else ("", conn.id)


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
