"""``covey kv export`` and ``covey kv import`` against a fake agent."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent import exits
from agent.cli import kv_transfer
from agent.cluster.kv_lines import unseen
from gossip.core.errors import InvalidRequest
from gossip.kv.changes import CounterUpdate, SetUpdate
from gossip.kv.requests import ListResult, PutResult
from tests.support.command_line import Covey, feed
from tests.support.fake_agent import Served

LINES = [
    {"key": "a/1", "values": [{"value": "on"}]},
    {"key": "a/2", "values": [{"value_base64": "/w=="}]},
    {"key": "b", "values": [{"value": "newer"}, {"value": "older"}]},
]


def written(path: Path, lines: Sequence[object]) -> str:
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return str(path)


def keep_siblings(served: Served) -> None:
    """Have the fake keep what a context has not seen, as owners do."""
    kv = served.agent.kv

    async def put(key: str, value: bytes, **options: Any) -> PutResult:
        kv.asked.append({"key": key, "context": options["context"]})
        seen = kv.seen.get(key, []) if options["context"] == b"ctx\xff" else []  # type: ignore[attr-defined]
        kept = [each for each in kv.values.get(key, []) if each not in seen]
        kv.values[key] = [value, *kept]
        return PutResult(kv.outcome, 2, 2, b"", len(kv.values[key]))

    kv.put = put  # type: ignore[method-assign]
    kv.seen = {key: list(values) for key, values in kv.values.items()}  # type: ignore[attr-defined]


def test_what_is_exported_is_imported_with_siblings_and_bytes(
    covey: Covey, served: Served, tmp_path: Path
) -> None:
    values = {f"k{n:04}": [b"v\n\x9b"] for n in range(1200)}
    values |= {"bytes": [bytes(range(256))], "siblings": [b"newer", b"older"]}
    served.agent.kv.values = dict(values)
    exported = covey("kv", "export")
    assert exported.status == exits.YES
    assert "1202 keys, of them 1 with several versions." in exported.stderr
    assert len(exported.stdout.splitlines()) == 1202
    file = tmp_path / "keys"
    file.write_text(exported.stdout)
    served.agent.kv.values = {}
    keep_siblings(served)
    imported = covey("kv", "import", str(file))
    assert imported.status == exits.YES
    assert "written\t1202\n" in imported.stdout
    assert served.agent.kv.values == values, "with the newest version first"
    again = covey("kv", "import", str(file), "-o", "json").json()
    assert again == {
        "written": 0, "unchanged": 1202, "expired": 0, "refused": 0, "indeterminate": 0,
        "troubles": [],
    }  # fmt: skip


def test_export_of_a_prefix_alone(covey: Covey, served: Served) -> None:
    served.agent.kv.values = {"a/1": [b"on"], "b": [b"off"]}
    outcome = covey("kv", "export", "--prefix", "a/")
    [line] = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert line["key"] == "a/1"
    assert covey("kv", "export", "--prefix", "z").stdout == ""


def test_a_partial_page_is_asked_again_and_else_the_export_is_not_whole(
    covey: Covey, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.agent.kv.values = {"a": [b"on"]}
    asked, list_ = [], served.agent.kv.list

    async def first_is_partial(prefix: str, **options: Any) -> ListResult:
        asked.append(options["after"])
        served.agent.kv.outcome = "partial" if len(asked) < 2 else "ok"
        return await list_(prefix, **options)

    monkeypatch.setattr(served.agent.kv, "list", first_is_partial)
    assert covey("kv", "export").status == exits.YES
    assert len(asked) == 2
    monkeypatch.undo()
    served.agent.kv.outcome = "partial"
    outcome = covey("kv", "export")
    assert outcome.status == exits.UNHEALTHY
    assert outcome.stdout, "what there is comes all the same"
    assert "not whole" in outcome.stderr


def test_what_is_there_is_replaced_by_the_context_of_a_read(
    covey: Covey, served: Served, tmp_path: Path
) -> None:
    served.agent.kv.values = {"a/1": [b"off"]}
    keep_siblings(served)
    covey("kv", "import", written(tmp_path / "f", LINES))
    contexts = {each["key"]: each["context"] for each in served.agent.kv.asked if "key" in each}
    assert contexts["a/1"] == b"ctx\xff", "of the read"
    assert served.agent.kv.values["a/1"] == [b"on"]
    import base64

    assert contexts["a/2"] == base64.urlsafe_b64decode(unseen("a/2")), "of who has seen nothing"


def test_bad_lines_and_refused_keys_are_named_and_the_rest_is_written(
    covey: Covey, served: Served, tmp_path: Path
) -> None:
    put = served.agent.kv.put

    async def refuse(key: str, value: bytes, **options: Any) -> PutResult:
        if key == "a/2":
            raise InvalidRequest("it cannot be")
        return await put(key, value, **options)

    served.agent.kv.put = refuse  # type: ignore[method-assign]
    file = written(tmp_path / "f", [*LINES, {"key": "c", "values": []}, {"key\x1b[2J": 1}])
    outcome = covey("kv", "import", file)
    assert outcome.status == exits.NO
    assert "refused\t3\n" in outcome.stdout
    assert "written\t2\n" in outcome.stdout
    assert "line 2, a/2: refused: it cannot be" in outcome.stderr
    assert "line 4, no key: refused" in outcome.stderr
    assert "\x1b" not in outcome.stderr


def test_who_does_not_know_says_so(covey: Covey, served: Served, tmp_path: Path) -> None:
    put = served.agent.kv.put

    async def doubt(key: str, value: bytes, **options: Any) -> PutResult:
        done = await put(key, value, **options)
        return PutResult("indeterminate", 1, 2, done.context)

    served.agent.kv.put = doubt  # type: ignore[method-assign]
    outcome = covey("kv", "import", written(tmp_path / "f", LINES[:1]), "-o", "json")
    assert outcome.status == exits.UNHEALTHY
    [trouble] = outcome.json()["troubles"]
    assert (trouble["key"], trouble["outcome"]) == ("a/1", "indeterminate")


def test_a_key_that_cannot_be_read_is_not_written(
    covey: Covey, served: Served, tmp_path: Path
) -> None:
    served.agent.kv.outcome = "unavailable"
    outcome = covey("kv", "import", written(tmp_path / "f", LINES[:1]))
    assert outcome.status == exits.NO
    assert served.agent.kv.values == {}


def test_the_last_line_of_a_key_wins_and_stdin_is_read(
    covey: Covey, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"key": "a", "values": [{"value": str(n)}]} for n in range(40)]
    feed(monkeypatch, tmp_path, "".join(f"{json.dumps(line)}\n\n" for line in lines).encode())
    assert covey("kv", "import", "-").status == exits.YES
    assert served.agent.kv.values["a"][0] == b"39"


def test_a_line_without_end_is_no_file_of_ours(
    covey: Covey, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_transfer, "LINE_BYTES_MAX", 64)
    file = tmp_path / "f"
    file.write_bytes(b"x" * 200)
    outcome = covey("kv", "import", str(file))
    assert outcome.status == exits.USAGE
    assert "line 1 has more than 64 bytes" in outcome.stderr


def test_typed_keys_are_made_anew_unless_they_are_the_same(
    covey: Covey, served: Served, tmp_path: Path
) -> None:
    kv = served.agent.kv
    kv.values, kv.types = {"n": [b"5"], "s": [b'["ada"]']}, {"n": "counter", "s": "set"}
    lines = covey("kv", "export").stdout.splitlines()
    file = written(tmp_path / "keys", list(map(json.loads, lines)))
    assert "unchanged\t2\n" in covey("kv", "import", file).stdout
    kv.values, kv.types, kv.asked = {"n": [b"5"]}, {}, []
    assert "written\t2\n" in covey("kv", "import", file).stdout
    assert [each["change"] for each in kv.asked if "change" in each] in (
        [CounterUpdate(5), SetUpdate("ada")],
        [SetUpdate("ada"), CounterUpdate(5)],
    )
    assert "n" not in kv.values, "bytes that were there were deleted first"
