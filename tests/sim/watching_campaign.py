"""Run many schedules in which clients watch: ``python -m tests.sim.watching_campaign``.

``soak.py`` says what is printed, and when the exit status is 1.
"""

import sys

from tests.sim.soak import Campaign, soak

CAMPAIGN = Campaign("tests.sim.watching", "python -m tests.sim.watching_campaign", 2_000)

if __name__ == "__main__":
    sys.exit(soak(CAMPAIGN, __doc__))
