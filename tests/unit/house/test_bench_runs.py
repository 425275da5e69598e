"""A benchmark of an hour loses nothing because one contender fails, and none is left out."""

import argparse
import contextlib
import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from bench import all as every
from bench import membership, start, trials
from bench.contenders import CONTENDERS, Contender

ROOT = Path(__file__).resolve().parents[3]


def _options(*parts: str) -> argparse.Namespace:
    return argparse.Namespace(
        parts=parts, systems=["covey", "serf", "kinship"], joining=100, quick=True, members=[5]
    )


def test_who_does_not_join_has_a_gap_and_a_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def join(contender: Contender, members: int) -> float | None:
        if contender is CONTENDERS["kinship"]:
            raise RuntimeError("9 agents did not find each other")
        return None if contender is CONTENDERS["serf"] else 4.5

    monkeypatch.setattr(trials, "join", join)
    run = membership.Run(_options("join"))
    run.measure()
    run.show()
    printed = capsys.readouterr().out
    assert "| 100 agents start at once: all see all | 4.5 | not in time | failed |" in printed
    assert "Not measured: kinship, 100 join: 9 agents did not find each other" in printed
    figures = run.figures()
    assert figures["join_s"] == {"covey": 4.5, "serf": None, "kinship": None}
    assert len(figures["not_measured"]) == 1


def test_a_cluster_that_fails_takes_no_part_and_no_other_with_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Fake:
        def __init__(self, contender: Contender, members: int) -> None:
            self.contender = contender

        def must_form(self) -> None:
            if self.contender is CONTENDERS["kinship"]:
                raise OSError("too many open files")

        def close(self) -> None:
            pass

    def crash(cluster: Fake, kind: str, times: int) -> trials.Detection:
        return trials.Detection(0.5, 0.8, 0)

    monkeypatch.setattr(membership, "Cluster", Fake)
    monkeypatch.setattr(trials, "crash", crash)
    run = membership.Run(_options("crash"))
    run.measure()
    run.show()
    printed = capsys.readouterr().out
    assert "| 5 | process | 0.5 | 0.8 | 0.5 | 0.8 | failed | failed |" in printed
    assert "too many open files" in printed


def test_an_aborted_run_prints_what_it_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def abort(contender: Contender, members: int) -> float | None:
        if contender is CONTENDERS["covey"]:
            return 4.5
        raise KeyboardInterrupt

    monkeypatch.setattr(trials, "join", abort)
    monkeypatch.setattr(membership, "can_make_networks", True)
    monkeypatch.setattr(membership, "many_neighbours", contextlib.nullcontext)
    monkeypatch.setattr(membership, "_options", lambda: _options("join"))
    with pytest.raises(KeyboardInterrupt):
        membership.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["join_s"]["covey"] == 4.5


def test_all_means_all() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"^bench-([a-z-]+):", makefile, flags=re.MULTILINE)
    assert set(every.NAMES) == {target.replace("-", "_") for target in targets}
    for name in every.NAMES:
        assert (ROOT / "bench" / f"{name}.py").exists()


@pytest.mark.slow
def test_the_modules_of_an_agent_are_counted(tmp_path: Path) -> None:
    """In a program of its own, which no type checker sees."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    (tmp_path / "covey.toml").write_text(start.SETTINGS.replace("27747", port))
    subprocess.run(
        [start.COVEY, "--dir", str(tmp_path), "init", "bench", "--node-name", "one"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert start._modules(tmp_path) > 100
