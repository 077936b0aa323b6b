# SPDX-License-Identifier: Apache-2.0
"""Generated message classes; nobody outside nsm_sdk.api imports from here.

Does:  holds what tools/generate_api.py makes (all files but this one and `pool`).
Place: re-exported under short names by nsm_sdk.api.
State: none.
"""
