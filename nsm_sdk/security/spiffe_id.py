# SPDX-License-Identifier: Apache-2.0
"""SPIFFE ids: who a workload is, as a URI.

Does:  tells well-formed ids from others, and makes one from free names.
Place: identities and tokens.
State: a bounded cache of texts looked at: peers show the same id with every call.
"""

from __future__ import annotations

import functools
import hashlib
import re

from nsm_sdk.errors import InvalidRequest

_ID = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)*)")
_ODD = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST = 2048


def is_spiffe_id(text: str) -> bool:
    """Whether the text is a SPIFFE id: a trust domain and path segments, none of them `.` or `..`."""
    # Outside the cache, so that nobody fills it with enormous texts.
    return len(text) <= _LONGEST and _is_one(text)


@functools.lru_cache(maxsize=1024)
def _is_one(text: str) -> bool:
    found = _ID.fullmatch(text)
    return found is not None and not {".", ".."} & set(found[2].split("/"))


def check_spiffe_id(text: str) -> str:
    """The text itself. InvalidRequest unless it is a SPIFFE id."""
    if not is_spiffe_id(text):
        raise InvalidRequest(
            f"{text[:100]!r} is not a SPIFFE id", hint="give spiffe://DOMAIN/PATH, of letters, digits, '.', '-', '_'"
        )
    return text


def trust_domain(spiffe_id: str) -> str:
    """The trust domain of a SPIFFE id. InvalidRequest for anything else."""
    return check_spiffe_id(spiffe_id).split("/")[2]


def path_part(name: str) -> str:
    """A path segment for any name. Different names give different segments: odd ones get a digest appended."""
    if name and name not in (".", "..") and not _ODD.search(name) and len(name) <= 200:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_ODD.sub('-', name)[:100]}-{digest}"
