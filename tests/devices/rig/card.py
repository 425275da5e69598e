"""The card that each device starts from: a Debian with Covey on it, installed as by a stranger.

Made once a run: a wheel is built from this work tree and installed into an environment of its own,
in /opt, on the packages that the lock names, as docs/install.md says. Two people have accounts: ada
may use sudo, bob may not.
"""

import subprocess
from pathlib import Path

from tests.devices.bare import SOURCE, clone
from tests.devices.rig.debian import DEVICE, tree
from tests.devices.rig.podman import LIMITS, Podman, ways_out

PROGRAM = "/opt/covey/bin/covey"
PEOPLE = ("ada", "bob")
INSTALL_TIMEOUT_S = 900

INSTALL = f"""
set -eu
python3 -m venv /opt/covey
/opt/covey/bin/pip --disable-pip-version-check --quiet wheel --no-deps -w /wheels {SOURCE}
/opt/covey/bin/pip --disable-pip-version-check --quiet install --require-hashes \\
    -r {SOURCE}/packaging/locks/run.txt
/opt/covey/bin/pip --disable-pip-version-check --quiet install --no-deps /wheels/covey-*.whl
for person in {" ".join(PEOPLE)}; do useradd --create-home --shell /bin/bash $person; done
echo 'ada ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/ada
"""


def make_card(podman: Podman, suite: str) -> Path:
    """Return a directory with the card's content; it belongs to this podman."""
    card, source = podman.place / f"card-{suite}", podman.place / "source"
    if not source.exists():
        clone(source)
    # Debian's tree stays as it is; a copy costs two seconds.
    subprocess.run(
        ["cp", "--archive", "--reflink=auto", tree(suite, DEVICE), card], check=True, timeout=300
    )
    podman.outside(
        "run", "--rm", *LIMITS, *ways_out(), "--volume", f"{source}:{SOURCE}:O",
        "--rootfs", card, "sh", "-c", INSTALL, timeout_s=INSTALL_TIMEOUT_S,
    )  # fmt: skip
    return card
