"""Run many schedules in which values expire: ``python -m tests.sim.expiring_campaign``.

``soak.py`` says what is printed, and when the exit status is 1.
"""

import sys

from tests.sim.soak import Campaign, soak

CAMPAIGN = Campaign("tests.sim.expiring", "python -m tests.sim.expiring_campaign", 5_000)

if __name__ == "__main__":
    sys.exit(soak(CAMPAIGN, __doc__))
