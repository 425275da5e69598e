"""In continuous integration a skip is a failure; elsewhere it stays a skip."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import GIVE_UP_S

CONFTEST = Path(__file__).resolve().parents[2] / "conftest.py"
SKIPPING = """
import pytest

def test_that_skips():
    pytest.skip("no broker here")

@pytest.mark.skipif(True, reason="no root here")
def test_that_is_marked():
    raise AssertionError

@pytest.mark.xfail(strict=True)
def test_that_is_expected_to_fail():
    raise AssertionError
"""
HIDDEN = """
import pytest

pytest.importorskip("a_module_that_nobody_has")
"""


def _pytest(folder: Path, in_ci: bool) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(CONFTEST.read_text())
    (folder / "test_skipping.py").write_text(SKIPPING)
    (folder / "test_hidden.py").write_text(HIDDEN)
    environment = {**os.environ, "CI": "true" if in_ci else ""}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "--rootdir", folder,
         "--continue-on-collection-errors", folder],
        cwd=folder, env=environment, capture_output=True, text=True, check=False,
        timeout=4 * GIVE_UP_S,
    )  # fmt: skip


def test_skips_are_failures_in_ci(tmp_path: Path) -> None:
    result = _pytest(tmp_path, in_ci=True)
    assert result.returncode == 1, result.stdout
    assert "1 failed, 1 xfailed, 2 errors" in result.stdout
    for reason in ("no broker here", "no root here", "a_module_that_nobody_has"):
        assert f"nothing may be skipped: {reason}" in result.stdout or reason in result.stdout


@pytest.mark.slow
def test_skips_are_skips_elsewhere(tmp_path: Path) -> None:
    result = _pytest(tmp_path, in_ci=False)
    assert result.returncode == 0, result.stdout
    assert "3 skipped, 1 xfailed" in result.stdout


@pytest.mark.parametrize("script", [".ci/run"])
def test_ci_asks_for_it(script: str) -> None:
    assert "export CI=true" in (CONFTEST.parents[1] / script).read_text()
