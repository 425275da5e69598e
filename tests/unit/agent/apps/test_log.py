"""What an app prints: lines, bounds, and readers that do not keep up."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from agent.apps import log as log_module
from agent.apps.log import FOLLOWER_LINES_MAX, TAIL_LINES_MAX, AppLog

STAMP = "2025-06-17T12:00:00.000Z"


def make(path: Path, counts: Counter[str] | None = None) -> AppLog:
    return AppLog(path, Counter() if counts is None else counts, lambda: 1_750_161_600.0)


def test_lines_are_stamped_and_cut_where_the_app_cut_them(tmp_path: Path) -> None:
    app_log = make(tmp_path / "x.log")
    for piece in (b"fir", b"st\nsecond\nthi", b"rd\n"):
        app_log.feed(piece)
    expected = [f"{STAMP} {word}" for word in ("first", "second", "third")]
    assert app_log.tail(10) == expected
    assert (tmp_path / "x.log").read_text().splitlines() == expected
    assert app_log.tail(1) == expected[-1:]
    assert app_log.tail(0) == []


def test_a_note_does_not_swallow_what_was_begun(tmp_path: Path) -> None:
    app_log = make(tmp_path / "x.log")
    app_log.feed(b"half a line")
    app_log.record("ended")
    assert app_log.tail(10) == [f"{STAMP} half a line", f"{STAMP} -- ended"]


def test_bytes_that_are_no_text_and_lines_without_end(tmp_path: Path) -> None:
    app_log = make(tmp_path / "x.log")
    app_log.feed(b"\xff\xfe\n")
    app_log.feed(b"x" * 100_000)
    first, second = app_log.tail(10)
    assert first.endswith("\ufffd\ufffd")
    assert len(second) <= len(STAMP) + 1 + log_module.LINE_BYTES_MAX


def test_an_app_does_not_speak_as_the_agent(tmp_path: Path) -> None:
    app_log = make(tmp_path / "x.log")
    app_log.feed(b"-- stopped\n--\n---\n")
    app_log.feed(b"-- cut off by")
    app_log.record("ended by\x1b[2J\nitself")
    *its, ours = app_log.tail(10)
    assert its == [f"{STAMP}  {text}" for text in ("-- stopped", "--", "---", "-- cut off by")]
    assert ours == f"{STAMP} -- ended by\\x1b[2J\\nitself"


def test_what_it_prints_does_nothing_where_it_is_looked_at(tmp_path: Path) -> None:
    """In the file as well: people look at it with ``tail``."""
    app_log = make(tmp_path / "x.log")
    app_log.feed(b"a\tb\x1b[2J\x9b35m\r\xe2\x80\xae\n" + b"\x1b" * 8000 + b"\n")
    first, second = app_log.tail(10)
    assert first == f"{STAMP} a\tb\\x1b[2J\ufffd35m\\r\\u202e"
    assert len(second) == len(STAMP) + 1 + log_module.LINE_BYTES_MAX
    assert "\x1b" not in (tmp_path / "x.log").read_text()


def test_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "FILE_BYTES_MAX", 2_000)
    app_log = make(tmp_path / "x.log")
    for number in range(1_000):
        app_log.feed(b"line %d\n" % number)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["x.log", "x.log.1"]
    assert all(file.stat().st_size < 2_100 for file in files)
    assert (tmp_path / "x.log").read_text().endswith("line 999\n")


def test_memory_is_bounded_and_survives_the_agent(tmp_path: Path) -> None:
    app_log = make(tmp_path / "x.log")
    for number in range(TAIL_LINES_MAX * 3):
        app_log.feed(b"line %d\n" % number)
    assert len(app_log.tail(10**6)) == TAIL_LINES_MAX
    later = make(tmp_path / "x.log")
    assert later.tail(3) == app_log.tail(3)


def test_lines_end_at_newlines_alone_also_after_a_restart(tmp_path: Path) -> None:
    app_log = make(tmp_path / "x.log")
    app_log.feed("one\u2028line\nand\x85another\n".encode())
    expected = [f"{STAMP} one\\u2028line", f"{STAMP} and\\x85another"]
    assert app_log.tail(10) == expected
    assert make(tmp_path / "x.log").tail(10) == expected


def test_a_disk_that_refuses_is_counted(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    app_log = make(tmp_path / "missing" / "x.log", counts)
    app_log.feed(b"a\nb\n")
    assert counts == {"app_log_lines_dropped/disk": 2}
    assert len(app_log.tail(5)) == 2


def test_followers_get_the_past_and_the_future(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        app_log = make(tmp_path / "x.log")
        app_log.feed(b"old\n")
        lines = app_log.follow(10)
        got = [await anext(lines)]
        waiting = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        app_log.feed(b"new\n")
        got.append(await waiting)
        return got

    assert asyncio.run(scenario()) == [f"{STAMP} old", f"{STAMP} new"]


def test_a_slow_follower_is_told_what_it_missed(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()

    async def scenario() -> list[str]:
        app_log = make(tmp_path / "x.log", counts)
        app_log.feed(b"old\n")
        lines = app_log.follow(1)
        got = [await anext(lines)]
        for number in range(FOLLOWER_LINES_MAX + 3):
            app_log.feed(b"line %d\n" % number)
        got += [await anext(lines), await anext(lines)]
        return got

    _, told, following = asyncio.run(scenario())
    assert told.startswith("-- 3 lines left out")
    assert following.endswith("line 3")
    assert counts["app_log_lines_dropped/slow_reader"] == 3
