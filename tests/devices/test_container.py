"""The image is built from its file as it is, runs without root, and keeps what is its own.

The base image comes from no registry: a Debian with Python and pip takes its place.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.devices.bare import clone
from tests.devices.conftest import SUITE
from tests.devices.rig.debian import DEVICE, tree
from tests.devices.rig.podman import LIMITS, Podman, ways_out
from tests.live.harness.waiting import eventually

pytestmark = [pytest.mark.devices]

CONTAINERFILE = "packaging/container/Containerfile"
BASE = "localhost/base-of-covey:here"
HEALTH = "covey status"
VOLUME = "covey-data"


@pytest.fixture(scope="module")
def source(podman: Podman) -> Path:
    """Give a clone of this work tree, and podman an image that its Containerfile may begin with."""
    place = podman.place / "image-source"
    clone(place)
    (links := podman.place / "links/usr/bin").mkdir(parents=True)
    (links / "python").symlink_to("python3")  # as the base image calls it
    packed = podman.place / "base.tar"
    parts: list[str | Path] = [
        "-C",
        tree(SUITE, DEVICE),
        ".",
        "-C",
        links.parents[1],
        "usr/bin/python",
    ]
    subprocess.run(["tar", "-c", "-f", packed, *parts], check=True, timeout=300)
    podman("import", packed, BASE, timeout_s=300)
    return place


def build(podman: Podman, source: Path, form: str) -> str:
    """Build the image in one of the two formats; return its name."""
    options = ("--format", form, "--tag", f"covey:{form}", "--build-arg", f"BASE={BASE}")
    file = ("--file", source / CONTAINERFILE)
    podman.outside("build", "--pull=never", *ways_out(), *options, *file, source)
    return f"covey:{form}"


class Container:
    """A running container of an image."""

    def __init__(self, podman: Podman, image: str, *options: str) -> None:
        self._podman = podman
        self.name = "covey"
        podman.run_image(
            self.name, image, *LIMITS, "--volume", f"{VOLUME}:/var/lib/covey", *options
        )

    def run(self, *command: str) -> str:
        """Run a command in it. Raises Failed."""
        return self._podman("exec", self.name, *command)

    def attempt(self, *command: str) -> int:
        """Run a command in it; return its exit status."""
        return self._podman.attempt("exec", self.name, *command).returncode

    def is_healthy(self) -> bool:
        """Run its health check, as podman would from time to time."""
        return self._podman.attempt("healthcheck", "run", self.name).returncode == 0

    def stop(self) -> int:
        """Stop it in order and throw it away; return the exit status of its process."""
        self._podman("stop", "--time", "60", self.name)
        [told] = json.loads(self._podman("container", "inspect", self.name))
        self._podman("rm", self.name)
        return int(told["State"]["ExitCode"])


@pytest.fixture(scope="module")
def container(podman: Podman) -> Iterator[Callable[..., Container]]:
    """Give a function that runs an image, on the same volume each time."""
    yield lambda image, *options: Container(podman, image, *options)
    podman("rm", "--all", "--force", "--time", "0")
    podman("volume", "rm", "--force", VOLUME)


def health_check(podman: Podman, image: str) -> list[str]:
    """Return the health check that an image carries; versions of podman spell its name apart."""
    [told] = json.loads(podman("image", "inspect", image))
    found = [value for name, value in told.items() if name.lower() == "healthcheck" and value]
    return list(found[0]["Test"]) if found else []


def test_docker_format(podman: Podman, source: Path, container: Callable[..., Container]) -> None:
    image = build(podman, source, "docker")
    assert health_check(podman, image) == ["CMD", *HEALTH.split()]
    made = container(image)
    eventually(lambda: made.attempt("covey", "status"), lambda seen: seen == 6, 20, "it waits")
    assert not made.is_healthy(), "it waits to be let into a covey"
    made.run("covey", "init", "greenhouse")
    eventually(made.is_healthy, bool, 20, "it is healthy")
    assert made.run("id", "-u").strip() != "0"
    assert "covey" in made.run("covey", "--version")
    assert made.stop() == 0, "SIGTERM reaches the agent, which says goodbye"


def test_oci_format_on_the_same_volume(
    podman: Podman, source: Path, container: Callable[..., Container]
) -> None:
    """OCI's format has no health check: it is given when the container is made."""
    image = build(podman, source, "oci")
    assert not health_check(podman, image)
    made = container(image, "--health-cmd", HEALTH)
    eventually(made.is_healthy, bool, 20, "it is healthy")
    assert json.loads(made.run("covey", "status", "-o", "json"))["cluster"]["name"] == "greenhouse"
    assert made.stop() == 0
