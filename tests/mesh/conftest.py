# SPDX-License-Identifier: Apache-2.0
"""What tests of whole meshes need of pytest.

Does:  log records keep the texts of errors and not the errors: their tracebacks would hold channels and sockets until
       the records are dropped, which is after the leak check.
Place: tests/mesh.
State: the factory of log records, for one test.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _records_hold_no_errors() -> Iterator[None]:
    before = logging.getLogRecordFactory()

    def make(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        if isinstance(record.args, tuple):
            record.args = tuple(str(one) if isinstance(one, BaseException) else one for one in record.args)
        return record

    logging.setLogRecordFactory(make)
    yield
    logging.setLogRecordFactory(before)
