"""Each transcript in tests/transcripts says today what it said when it was recorded."""

from pathlib import Path

import pytest

from gossip.sim.transcript import BadCommand, Transcript, replay

FOLDER = Path(__file__).resolve().parents[1] / "transcripts"
TRANSCRIPTS = sorted(FOLDER.glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path, request: pytest.FixtureRequest) -> None:
    recorded = path.read_text()
    answered = replay(recorded)
    if request.config.getoption("--rewrite", default=False):
        path.write_text(answered)
        return
    assert answered == recorded, "run `pytest tests/sim --rewrite`, then read the difference"


def test_there_are_transcripts() -> None:
    assert TRANSCRIPTS


@pytest.mark.parametrize("line", ["fly a", "run 5", "cut a", "members z", "lose much"])
def test_a_bad_command_names_its_line(line: str) -> None:
    transcript = Transcript()
    transcript.command("nodes a b")
    with pytest.raises(BadCommand, match=line):
        transcript.command(line)
