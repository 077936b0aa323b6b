# SPDX-License-Identifier: Apache-2.0
"""The path of a connection, one segment per hop.

Does:  adds this hop's segment, or finds it again, and makes its id the connection's id; gives the caller its own id and
       index back. The id of a new segment is a keyed hash of who asks, so that a repeated Request, or a Close after a
       lost answer, finds the same connection, and nobody else's. Too many hops or addresses are refused.
Place: first in every chain, above `Begin`.
State: the hop's secret.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid

from nsm_sdk.api import Connection, Request, describe
from nsm_sdk.api.limits import MOST_HOPS, check_lengths
from nsm_sdk.api.tokens import TOKEN_KEY, subject
from nsm_sdk.core import Call, Element, Next, Secret
from nsm_sdk.elements.connect import NEXT_HOP
from nsm_sdk.errors import InvalidRequest


class UpdatePath(Element):
    """Take part in the path as `name`.

    `opens`: whether a path may begin here (a client's hop); elsewhere a request without a path is refused. `secret`
    makes derived ids stable over restarts; random when not given.
    """

    unique = True

    def __init__(self, name: str, *, opens: bool = True, secret: str = "") -> None:
        self.name = name
        self.opens = opens
        self._secret = hashlib.sha256(Secret(secret or secrets.token_hex(32)).encode()).digest()

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = request.connection
        check_lengths(conn)
        came_id, came_index = self._step(call, conn)
        answer = await next.request(call, request)
        path = answer.path
        if came_index < len(path.path_segments):
            answer.id = came_id
            path.index = came_index
        return answer

    async def close(self, call: Call, conn: Connection, next: Next) -> None:
        if not self.opens and not conn.path.path_segments:
            return  # every connection of this hop has a path, so this is none of them; closing nothing is no error
        check_lengths(conn)
        self._step(call, conn)
        await next.close(call, conn)

    def _step(self, call: Call, conn: Connection) -> tuple[str, int]:
        """Move `conn` on to this hop; answers the id and index that the caller sees."""
        path = conn.path
        segments = path.path_segments
        if not segments:
            if not self.opens:
                raise InvalidRequest(
                    f"connection {describe(conn)} has no path",
                    hop=self.name,
                    hint="send a path whose first segment has your name and id",
                )
            path.index = 0
            conn.id = conn.id or str(uuid.uuid4())
            segments.add(name=self.name, id=conn.id)
            return conn.id, 0
        index = path.index
        if index < len(segments) and segments[index].name == self.name:
            conn.id = segments[index].id
            return conn.id, index
        self._check(conn)
        came_id = conn.id
        previous = segments[index]
        if index + 1 >= MOST_HOPS:
            raise InvalidRequest(
                f"the path has {index + 1} hops before this one, at most {MOST_HOPS - 1} are taken",
                hop=self.name,
                hint="see whether the hops go round in a circle",
            )
        if index + 1 == len(segments):
            segments.add(name=self.name, id=self._derive(call, previous.name, previous.id))
        elif segments[index + 1].name != self.name:
            segments[index + 1].name = self.name
            segments[index + 1].id = self._derive(call, previous.name, previous.id)
        path.index = index + 1
        conn.id = segments[index + 1].id
        return came_id, index

    def _check(self, conn: Connection) -> None:
        path = conn.path
        if path.index >= len(path.path_segments):
            raise InvalidRequest(
                f"path index {path.index} is out of range: the path has {len(path.path_segments)} segments",
                hop=self.name,
                hint="the index must point to the caller's own segment",
            )
        current = path.path_segments[path.index]
        if current.id != conn.id:
            raise InvalidRequest(
                f"the connection's id {conn.id!r} is not that of its current path segment, {current.id!r}",
                hop=self.name,
                hint="the id of a connection is the id of the segment that the index points to",
            )

    def _derive(self, call: Call, previous_name: str, previous_id: str) -> str:
        asks = call.peer.identity or subject(call.metadata.get(TOKEN_KEY, ""))
        parts = (previous_name, previous_id, asks, self.name)
        # Lengths keep ("ab", "c") and ("a", "bc") apart.
        text = "".join(f"{len(part)}:{part}" for part in parts)
        digest = hashlib.blake2b(text.encode(), key=self._secret, digest_size=16).hexdigest()
        # A UUID of version 4, put together by hand: the class takes longer than the hash.
        variant = "89ab"[int(digest[16], 16) & 3]
        return f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:]}"


class TrimPath(Element):
    """Let the path end here, unless `Connect` below has sent the request on."""

    _far = NEXT_HOP

    async def request(self, call: Call, request: Request, next: Next) -> Connection:
        conn = await next.request(call, request)
        if NEXT_HOP.get(call) is None:
            del conn.path.path_segments[conn.path.index + 1 :]
        return conn
