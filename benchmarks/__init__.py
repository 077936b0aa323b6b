# SPDX-License-Identifier: Apache-2.0
"""Side-by-side measurements; never tests.

Does:  every module here measures one part and prints a table; `python -m benchmarks` runs all, one process each.
Place: beside the library; nothing imports it.
State: the environment: grpcio is told to keep quiet about peers that a benchmark kills.
"""

import os

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
