# SPDX-License-Identifier: Apache-2.0
"""Side-by-side measurements; never tests.

Does:  every module here measures one part and prints a table; `python -m benchmarks` runs all, one process each.
Place: beside the library; nothing imports it.
State: none.
"""
