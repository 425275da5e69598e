"""Run many schedules in which owners change: ``python -m tests.sim.owners_campaign``.

``soak.py`` says what is printed, and when the exit status is 1.
"""

import sys

from tests.sim.soak import Campaign, soak

CAMPAIGN = Campaign("tests.sim.owners", "python -m tests.sim.owners_campaign", 20_000)

if __name__ == "__main__":
    sys.exit(soak(CAMPAIGN, __doc__))
