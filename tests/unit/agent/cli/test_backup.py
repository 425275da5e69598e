"""``covey backup`` against a fake agent: made, cut off, gone on with, looked at and put back."""

import os
from pathlib import Path

import pytest

from agent import exits
from agent.backup import backup_seal, left_out
from agent.cli import backup
from tests.support.command_line import Covey
from tests.support.fake_agent import Served

VALUES = {f"k{n:04}": [b"value %d" % n] for n in range(1200)}
VALUES |= {"bytes": [bytes(range(256))], "siblings": [b"newer", b"older"]}


@pytest.fixture
def file(served: Served, tmp_path: Path) -> Path:
    served.agent.kv.values = dict(VALUES)
    return tmp_path / "farm.backup"


def test_all_keys_go_into_a_file_and_come_back(covey: Covey, served: Served, file: Path) -> None:
    made = covey("backup", "create", str(file), "--keys-only", "-o", "json")
    assert made.status == exits.YES, made.stderr
    assert (made.json()["keys"], made.json()["versions"]) == (1202, 1203)
    assert file.stat().st_mode & 0o777 == 0o600
    looked = covey("backup", "verify", str(file), "-o", "json")
    assert looked.status == exits.YES
    assert looked.json()["keys"] == 1202
    assert looked.json()["whole"]
    served.agent.kv.values = {}
    done = covey("backup", "restore", str(file), "--yes", "-o", "json")
    assert done.status == exits.YES, done.stderr
    assert done.json() == {
        "written": 1202, "unchanged": 0, "different": 0, "refused": 0, "indeterminate": 0,
        "agreed": False, "troubles": [],
    }  # fmt: skip
    assert served.agent.kv.values == VALUES
    again = covey("backup", "restore", str(file), "--yes", "--merge", "-o", "json")
    assert again.json()["unchanged"] == 1202


def test_a_covey_with_keys_is_left_alone_unless_it_is_to_merge(
    covey: Covey, served: Served, file: Path
) -> None:
    covey("backup", "create", str(file), "--keys-only")
    served.agent.kv.values = {"k0001": [b"newer"]}
    refused = covey("backup", "restore", str(file), "--yes")
    assert refused.status == exits.NO
    assert "this covey has keys; nothing was changed" in refused.stderr
    assert served.agent.kv.values == {"k0001": [b"newer"]}
    merged = covey("backup", "restore", str(file), "--yes", "--merge")
    assert merged.status == exits.NO
    assert "k0001: different: the key has other values by now" in merged.stderr
    assert served.agent.kv.values == {**VALUES, "k0001": [b"newer"]}


def test_a_covey_whose_first_keys_have_expired_has_keys(
    covey: Covey, served: Served, file: Path
) -> None:
    covey("backup", "create", str(file), "--keys-only")
    there = {f"a{n:03}": [b"old"] for n in range(250)}
    served.agent.kv.expired = set(there)
    served.agent.kv.values = {**there, "z": [b"newer"]}
    refused = covey("backup", "restore", str(file), "--yes")
    assert "this covey has keys; nothing was changed" in refused.stderr
    served.agent.kv.values = dict(there)
    assert covey("backup", "restore", str(file), "--yes").status == exits.YES


def test_files_are_not_in_it_and_it_says_so(
    covey: Covey, served: Served, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name without its blocks looks like a file that was saved."""
    names = {"\0f/model.bin": [b"record"], f"\0b/{'0' * 32}/000000": [b"block"]}
    served.agent.kv.values = names | VALUES
    assert "has files" not in covey("backup", "create", f"{file}.0", "--keys-only").stderr
    served.agent.blocks.files.add("model.bin", b"x")
    made = covey("backup", "create", str(file), "--keys-only", "-o", "json")
    assert made.json()["keys"] == len(VALUES)
    assert made.json()["files_left_out"]
    assert "this covey has files, which are not in it" in made.stderr
    with monkeypatch.context() as patched:  # as a version before made them
        patched.setattr(left_out, "BEFORE_THE_FIRST", "")
        covey("backup", "create", f"{file}.1", "--keys-only")
    served.agent.kv.values = {}
    done = covey("backup", "restore", f"{file}.1", "--yes")
    assert "it has the names of 1 file, which were left out" in done.stderr
    assert served.agent.kv.values == VALUES


def test_a_prefix_alone(covey: Covey, served: Served, file: Path) -> None:
    covey("backup", "create", str(file), "--keys-only")
    served.agent.kv.values = {}
    covey("backup", "restore", str(file), "--yes", "--prefix", "k00")
    assert served.agent.kv.values.keys() == {key for key in VALUES if key.startswith("k00")}


def test_one_that_is_cut_off_is_gone_on_with(
    covey: Covey, served: Served, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = backup._page
    pages: list[str] = []

    def breaks(client: object, after: str) -> bytes:
        if len(pages) == 2:
            served.agent.kv.outcome = "unavailable"
        pages.append(after)
        return whole(client, after)  # type: ignore[arg-type]

    monkeypatch.setattr(backup, "_page", breaks)
    cut = covey("backup", "create", str(file), "--keys-only")
    assert cut.status == exits.UNHEALTHY
    assert "go on with --resume" in cut.stderr
    assert not file.exists()
    served.agent.kv.outcome = "ok"
    left = file.with_name(f".{file.name}.unfinished")
    with left.open("ab") as torn:
        torn.write(b"half a part")
    pages[:] = ["", "", ""]
    made = covey("backup", "create", str(file), "--keys-only", "--resume", "-o", "json")
    assert made.status == exits.YES, made.stderr
    assert made.json()["keys"] == 1202
    assert len(pages) == 4, "of three pages two were there"
    assert covey("backup", "verify", str(file), "-o", "json").json()["keys"] == 1202


def test_where_owners_are_away_it_says_that_it_is_not_whole(
    covey: Covey, served: Served, file: Path
) -> None:
    served.agent.kv.outcome = "unavailable"
    made = covey("backup", "create", str(file), "--keys-only", "--incomplete")
    assert made.status == exits.UNHEALTHY
    assert "this backup is not whole" in made.stderr
    looked = covey("backup", "verify", str(file))
    assert looked.status == exits.NO
    assert "not enough owners of some keys answered then" in looked.stderr


def test_a_sealed_one_needs_its_secret(
    covey: Covey,
    served: Served,
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backup_seal, "SCRYPT_N", 16)
    secret, other = tmp_path / "secret", tmp_path / "other"
    secret.write_text("correct horse battery\n")
    other.write_text("wrong horse battery\n")
    sealed = "--passphrase-file", str(secret)
    made = covey("backup", "create", str(file), "--keys-only", *sealed)
    assert made.status == exits.YES, made.stderr
    assert b"value 7" not in file.read_bytes()
    without = covey("backup", "verify", str(file), "-o", "json").json()
    assert (without["sealed"], without["keys"], without["intact"]) == ("passphrase", None, True)
    assert covey("backup", "verify", str(file), *sealed, "-o", "json").json()["keys"] == 1202
    served.agent.kv.values = {}
    for wrong in ((), ("--passphrase-file", str(other)), ("--key-file", str(secret))):
        refused = covey("backup", "restore", str(file), "--yes", *wrong)
        assert refused.status in (exits.NO, exits.USAGE)
    assert served.agent.kv.values == {}
    assert covey("backup", "restore", str(file), "--yes", *sealed).status == exits.YES
    assert served.agent.kv.values == VALUES


def test_what_has_no_seal_is_not_taken_for_the_sealed_one(
    covey: Covey, served: Served, file: Path, tmp_path: Path
) -> None:
    """Somebody who can write where backups lie, and has no secret, puts another in its place."""
    covey("backup", "create", str(file), "--keys-only")
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(32))
    served.agent.kv.values = {}
    for command in (("verify", str(file)), ("restore", str(file), "--yes")):
        refused = covey("backup", *command, "--key-file", str(secret))
        assert refused.status == exits.NO
        assert "has no seal" in refused.stderr
    assert served.agent.kv.values == {}


def test_nobody_who_made_the_file_before_reads_the_backup(
    covey: Covey, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = file.with_name(f".{file.name}.unfinished")
    planted.write_bytes(b"")
    planted.chmod(0o666)
    with planted.open("rb") as theirs:
        assert covey("backup", "create", str(file), "--keys-only").status == exits.YES
        assert theirs.read() == b""
    file.replace(planted)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    refused = covey("backup", "create", str(file), "--keys-only", "--resume")
    assert refused.status == exits.NOT_PERMITTED
    assert "somebody else's" in refused.stderr


def test_a_damaged_one_is_put_back_only_where_it_is_asked_for(
    covey: Covey, served: Served, file: Path
) -> None:
    covey("backup", "create", str(file), "--keys-only")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    served.agent.kv.values = {}
    looked = covey("backup", "verify", str(file))
    assert looked.status == exits.NO
    assert "may be missing" in looked.stderr
    refused = covey("backup", "restore", str(file), "--yes")
    assert "nothing was changed" in refused.stderr
    assert served.agent.kv.values == {}
    covey("backup", "restore", str(file), "--yes", "--damaged")
    assert 0 < len(served.agent.kv.values) < len(VALUES)
    assert all(VALUES[key] == values for key, values in served.agent.kv.values.items())
