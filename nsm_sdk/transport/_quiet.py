# SPDX-License-Identifier: Apache-2.0
"""Keeps grpcio from writing to standard error.

Does:  asks for errors only, unless the environment says otherwise; must be imported before grpc is.
Place: first import of this room. A library is silent until the application configures logging, and grpcio reports a
       peer that stopped as news.
State: the environment of this process.
"""

from __future__ import annotations

import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
