"""Nothing that bandit finds stays without its reason.

Ruff's S rules are bandit's, ported, and numbered alike (S608 is B608): a `noqa` for the one
explains the line for both. What only bandit finds says `nosec`, with its number and the
reason behind it.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import GIVE_UP_S

ROOT = Path(__file__).resolve().parents[3]
PACKAGES = ("agent", "edge_apps", "gossip")
COMMAND = (sys.executable, "-m", "bandit", "--quiet", "--recursive", "--format", "json")
# bandit ends with 1 when it found something.
FOUND = (0, 1)


def _findings(configuration: Path, *places: str | Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*COMMAND, "--configfile", configuration, *places],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=4 * GIVE_UP_S,
    )  # fmt: skip
    assert done.returncode in FOUND, done.stderr
    told = json.loads(done.stdout)
    assert not told["errors"]
    assert told["metrics"]["_totals"]["loc"], f"bandit read nothing in {places}"
    return list(told["results"])


def _unexplained(findings: list[dict[str, Any]]) -> list[str]:
    """Return the findings on whose lines no `noqa` names ruff's rule of the same number."""
    left = []
    for found in findings:
        lines = (ROOT / found["filename"]).read_text().splitlines()
        first, last = found["line_range"][0], found["line_range"][-1]
        rule = found["test_id"].replace("B", "S", 1)
        if not re.search(rf"# noqa: [\w, ]*\b{rule}\b", "\n".join(lines[first - 1 : last])):
            left.append(f"{found['filename']}:{first} {found['test_id']} {found['issue_text']}")
    return left


@pytest.mark.slow
def test_every_finding_is_explained() -> None:
    findings = _findings(ROOT / "pyproject.toml", *PACKAGES)
    assert findings, "the queries of agent/store are built from our own names, and bandit sees it"
    assert not _unexplained(findings)


def test_a_finding_without_a_reason_is_seen(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "import hashlib, subprocess\n"
        'subprocess.run("id > " + input(), shell=True)  # noqa: S602 - explained\n'
        'hashlib.md5(b"")\n'
    )
    left = _unexplained(_findings(ROOT / "pyproject.toml", tmp_path))
    assert [text.split(":")[1].split()[:2] for text in left] == [["3", "B324"]]


def test_each_exemption_gives_its_reason() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{number}"
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if "# nosec" in line and not re.search(r"# nosec B\d{3} - \w+", line)
    ]
    assert not bare
