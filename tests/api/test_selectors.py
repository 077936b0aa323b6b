# SPDX-License-Identifier: Apache-2.0
"""Monitor selectors against a plain statement of the rule."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.api import Connection, Path, PathSegment, Selector, keys, matches

WORD = st.sampled_from(["", "a", "b"])
SEGMENTS = st.lists(st.builds(PathSegment, name=WORD, id=WORD, token=WORD), max_size=4)
SELECTORS = st.builds(Selector, path_segments=SEGMENTS, network_services=st.lists(WORD, max_size=2))
CONNECTIONS = st.builds(
    Connection, network_service=WORD, path=st.none() | st.builds(Path, path_segments=SEGMENTS, index=st.integers(0, 5))
)


def stated(selector: Selector, conn: Connection) -> bool:
    """The rule, written another way: slices of triples."""
    path = [(hop.name, hop.id, hop.token) for hop in conn.path.path_segments]
    wanted = [(hop.name, hop.id, hop.token) for hop in selector.path_segments]
    slices = [path[start : start + len(wanted)] for start in range(len(path) + 1)]
    fits = any(
        len(part) == len(wanted)
        and all(
            want in ("", have)
            for wants, haves in zip(wanted, part, strict=True)
            for want, have in zip(wants, haves, strict=True)
        )
        for part in slices
    )
    return fits and (not selector.network_services or conn.network_service in list(selector.network_services))


@given(SELECTORS, CONNECTIONS)
def test_matches_as_the_rule_states(selector: Selector, conn: Connection) -> None:
    assert matches(selector, conn) is stated(selector, conn)


@given(SELECTORS, CONNECTIONS)
def test_a_match_has_the_key_in_its_path(selector: Selector, conn: Connection) -> None:
    pair = keys(selector)
    if pair is not None and matches(selector, conn):
        assert pair in {(hop.name, hop.id) for hop in conn.path.path_segments}
    if pair is None:
        assert not any(hop.name and hop.id for hop in selector.path_segments)


def test_the_key_of_the_selector_that_every_hop_sends() -> None:
    assert keys(Selector(path_segments=[PathSegment(name="nsmgr", id="1")])) == ("nsmgr", "1")
    assert keys(Selector(path_segments=[PathSegment(id="1")])) is None
    assert keys(Selector()) is None


def test_expiry_and_metrics_do_not_count() -> None:
    conn = Connection(path=Path(path_segments=[PathSegment(name="n", id="1")]))
    wanted = PathSegment(name="n", id="1", metrics={"a": "b"})
    wanted.expires.seconds = 5
    assert matches(Selector(path_segments=[wanted]), conn)
