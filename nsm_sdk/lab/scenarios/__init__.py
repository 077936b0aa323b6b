# SPDX-License-Identifier: Apache-2.0
"""Stories that a mesh of programs is put through, with a ping in each direction all the time.

Does:  re-exports what the modules of this package define.
Place: `nsm demo heal`, the matrix of faults, their tests.
"""

from nsm_sdk.lab.scenarios.heal import SCENARIOS, Outcome, Scenario, play
from nsm_sdk.lab.scenarios.stage import SETTINGS, Mark, Stage, Watched, staged

__all__ = ["SCENARIOS", "SETTINGS", "Mark", "Outcome", "Scenario", "Stage", "Watched", "play", "staged"]
