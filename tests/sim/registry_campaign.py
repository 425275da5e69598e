"""Run many schedules in which the registry changes: ``python -m tests.sim.registry_campaign``.

``soak.py`` says what is printed, and when the exit status is 1.
"""

import sys

from tests.sim.soak import Campaign, soak

CAMPAIGN = Campaign("tests.sim.registry", "python -m tests.sim.registry_campaign", 100_000)

if __name__ == "__main__":
    sys.exit(soak(CAMPAIGN, __doc__))
