# SPDX-License-Identifier: Apache-2.0
"""Tags: what marks a thing as ours.

Does:  aliases come back as the tag they were made from, fit into a link, and differ where tags differ.
Place: nsm_sdk.mechanisms.tags and the ledger's file names.
State: none.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nsm_sdk.mechanisms import CLIENT_SIDE, ENDPOINT_SIDE, Tag, parse_alias
from nsm_sdk.mechanisms.tags import TABLES, file_name

_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=400)
_tags = st.builds(
    Tag, forwarder=_texts, role=st.sampled_from([CLIENT_SIDE, ENDPOINT_SIDE]), segment=_texts, connection=_texts
)


@given(_tags)
def test_an_alias_fits_and_is_known_as_ours(tag: Tag) -> None:
    alias = tag.alias
    assert len(alias) <= 255
    assert alias.isascii()
    parsed = parse_alias(alias)
    assert parsed is not None
    if len(alias) < 255 and "~" not in alias:
        assert parsed == tag


@given(_tags, _tags)
def test_different_tags_have_different_aliases(one: Tag, other: Tag) -> None:
    assert (one == other) == (one.alias == other.alias)


@given(st.text(max_size=300))
def test_any_other_alias_is_not_ours(alias: str) -> None:
    parsed = parse_alias(alias)
    assert parsed is None or alias.startswith("nsm:")


@given(_tags)
def test_mac_tables_and_file_names(tag: Tag) -> None:
    first = int(tag.mac[:2], 16)
    assert first & 3 == 2
    assert len(tag.tables) == 256
    assert tag.tables.start in TABLES
    assert tag.tables.stop - 1 in TABLES
    assert file_name(tag.connection).removesuffix(".json").isalnum()


def test_the_two_ends_differ() -> None:
    near, far = (Tag(forwarder="f", role=role, segment="s", connection="c") for role in (CLIENT_SIDE, ENDPOINT_SIDE))
    assert near.mac != far.mac
    assert near.tables != far.tables
