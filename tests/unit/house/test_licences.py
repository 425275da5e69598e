"""docs/licences.md lists what goes onto a device, under the licence that each package declares."""

import re
from importlib.metadata import PackageMetadata, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "licences.md").read_text()
# Packages that declare a licence in the old way, by classifier or in words of their own.
SPELLINGS = {
    "MIT License": "MIT",
    "Apache License, Version 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "Public Domain": "public domain",
}


def _listed() -> dict[str, str]:
    rows = re.findall(r"^\| ([\w-]+) \| ([^|]+) \| [^|]+ \|$", PAGE, re.MULTILINE)
    return {name: licence for name, licence in rows if name != "package"}


def _declared(told: PackageMetadata) -> set[str]:
    """Return the licences that a package declares, in SPDX's names."""
    if expression := told["License-Expression"]:
        return {expression}
    kinds = [text.split(" :: ")[-1] for text in told.get_all("Classifier") or ()
             if text.startswith("License :: ")]  # fmt: skip
    words = kinds or [told["License"]]
    return {SPELLINGS.get(word, word) for word in words}


def test_page_lists_what_goes_onto_a_device() -> None:
    lock = (ROOT / "packaging" / "locks" / "run.txt").read_text()
    locked = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    assert set(_listed()) == locked | {"uvloop", "iotcore"}, "the lock, and the extras"


def test_page_says_what_the_packages_declare() -> None:
    for name, listed in _listed().items():
        declared = _declared(distribution(name).metadata)
        assert declared in ({listed}, set(listed.split(" OR "))), name


def test_who_gets_the_wheel_gets_the_notice() -> None:
    """Two packages are under conditions of their own: whoever passes them on has to know."""
    strict = {name for name, licence in _listed().items() if "GPL" in licence}
    assert strict == {"zeroconf"}, "say in docs/licences.md and NOTICE how it is met"
    assert "zeroconf" in (ROOT / "NOTICE").read_text()
