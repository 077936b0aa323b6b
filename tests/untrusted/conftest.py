# SPDX-License-Identifier: Apache-2.0
"""What tests of untrusted input need of pytest.

Does:  log records keep the texts of errors and not the errors: their tracebacks would hold channels and sockets until
       the records are dropped, which is after the leak check.
Place: tests/untrusted.
State: the factory of log records, for one test.
"""

from __future__ import annotations

import logging
import traceback
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
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = "".join(traceback.format_exception(record.exc_info[1]))
            record.exc_info = None
        return record

    logging.setLogRecordFactory(make)
    yield
    logging.setLogRecordFactory(before)
