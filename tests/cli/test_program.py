# SPDX-License-Identifier: Apache-2.0
"""Program: what a process does once it is ready."""

from __future__ import annotations

import gc
import json
import os

import pytest

from nsm_sdk.cli.lines import Lines
from nsm_sdk.cli.program import Program
from nsm_sdk.cli.roles import registry
from nsm_sdk.cli.settings import load

pytestmark = pytest.mark.leaks("the writer's thread lives as long as its process")


async def test_what_was_there_at_the_start_is_not_looked_through_by_collections() -> None:
    read, write = os.pipe()
    try:
        lines = Lines(write, str)
        settings, _ = load(registry.Settings, flags={}, environment={}, file={}, known=[])
        program = Program("registry", settings, {}, lines)
        kept = [["made before"]]
        assert any(one is kept for one in gc.get_objects())
        program.ready(["unix:///tmp/x"])
        assert not any(one is kept for one in gc.get_objects())
        made_later = [["made later"]]
        assert any(one is made_later for one in gc.get_objects())
        assert lines.flush(10)
        assert json.loads(os.read(read, 65536))["event"] == "ready"
    finally:
        gc.unfreeze()
        os.close(read)
        os.close(write)
