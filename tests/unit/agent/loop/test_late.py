"""Modules that are loaded when somebody asks, beside the loop."""

import asyncio
import errno
import sys
import threading
from pathlib import Path

import pytest

from agent.exits import AgentError
from agent.loop import late
from agent.loop.late import load


def test_a_module_is_loaded_once_and_not_on_the_loops_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "rarely_asked_for.py").write_text(
        "import threading\nthread = threading.current_thread()\n"
    )

    async def scenario() -> None:
        await load("rarely_asked_for")
        loaded = sys.modules["rarely_asked_for"]
        assert loaded.thread is not threading.current_thread()
        await load("rarely_asked_for")
        assert sys.modules["rarely_asked_for"] is loaded

    asyncio.run(scenario())


def test_one_that_is_not_there_is_asked_for_again() -> None:
    async def scenario() -> None:
        for _ in range(2):
            with pytest.raises(ModuleNotFoundError):
                await load("agent.nobody_wrote_this")

    asyncio.run(scenario())


def test_without_file_descriptors_somebody_is_told_to_try_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusals: list[OSError] = [OSError(errno.EMFILE, "Too many open files")]

    def scarce(_name: str) -> None:
        if refusals:
            raise refusals.pop()

    async def scenario() -> None:
        with pytest.raises(AgentError, match="Too many open files"):
            await late.load("agent.some_part")
        await late.load("agent.some_part")

    monkeypatch.setattr(late, "import_module", scarce)
    monkeypatch.setattr(late, "_loaded", set())
    asyncio.run(scenario())
