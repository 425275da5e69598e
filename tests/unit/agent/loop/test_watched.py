"""No background task of the agent ends without anybody knowing, and each of them is watched."""

import ast
import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent import exits
from agent.exits import AgentError
from agent.loop import watched
from agent.loop.watched import TASKS, WELL_AFTER_S, Failure, TaskSet, Watch
from tests.support.patience import GIVE_UP_S
from tests.support.sources import nodes

ROOT = Path(__file__).resolve().parents[4]
Work = Callable[[], Coroutine[Any, Any, None]]
WITHIN_S = GIVE_UP_S

# ---- what a failure means -----------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(clock)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Have the pauses before each new start noted, and take no time."""
    noted: list[float] = []
    sleep = asyncio.sleep

    async def brief(delay_s: float) -> None:
        noted.append(delay_s)
        await sleep(0)

    monkeypatch.setattr("agent.loop.watched.asyncio.sleep", brief)
    return noted


def failing(times: int, then: Work, error: Exception | None = None) -> Work:
    """Return work that fails so often, and then does something else."""
    left = [times]

    async def work() -> None:
        if left[0]:
            left[0] -= 1
            raise error or OSError(24, "Too many open files")
        await then()

    return work


async def for_ever() -> None:
    await asyncio.Event().wait()


async def nothing() -> None:
    return


async def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.timeout(WITHIN_S):
        await story()


def test_what_stands_still_is_started_again_later_each_time(
    watch: Watch, pauses: list[float]
) -> None:
    async def story() -> None:
        await watch.start("discovery-rescan", failing(9, nothing))
        assert watch.counts["tasks_failed/discovery-rescan"] == 9
        assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
        assert watch.troubles() == [], "it has done what it was for"

    asyncio.run(run(story))


def test_a_trouble_is_told_until_the_task_has_run_for_a_while(
    watch: Watch, clock: Clock, pauses: list[float]
) -> None:
    async def story() -> None:
        running = asyncio.Event()

        async def well() -> None:
            running.set()
            await for_ever()

        task = watch.start("peer-book", failing(2, well), "x")
        await running.wait()
        [told] = watch.troubles()
        assert told.startswith("the task peer-book failed 2 times (the known peers): ")
        assert "Too many open files" in told
        clock.now_s += WELL_AFTER_S
        assert watch.troubles() == []
        assert "Too many open files" in watch.last_errors["peer-book"], "doctor tells it later"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run(story))


def test_who_ran_for_long_is_started_again_at_once(
    watch: Watch, clock: Clock, pauses: list[float]
) -> None:
    async def soon() -> None:
        raise OSError

    async def late() -> None:
        clock.now_s += WELL_AFTER_S
        raise OSError

    lives = iter([soon, soon, late, late, soon, nothing])

    async def work() -> None:
        await next(lives)()

    async def story() -> None:
        await watch.start("peer-book", work)

    asyncio.run(run(story))
    assert pauses == [1, 2, 1, 1, 2]


def test_what_the_agent_cannot_do_without_ends_it(watch: Watch) -> None:
    async def story() -> None:
        watch.start("database-commit", failing(1, nothing, ValueError("bad page")))
        with pytest.raises(AgentError, match=r"database-commit failed .*ValueError: bad page") as e:
            await watch.ended()
        assert e.value.status == exits.UNHEALTHY
        assert watch.counts["tasks_failed/database-commit"] == 1

    asyncio.run(run(story))


def test_an_error_for_people_ends_the_agent_as_it_is(watch: Watch) -> None:
    async def story() -> None:
        watch.start("driver", failing(1, nothing, AgentError("the disk is full", "make room")))
        await asyncio.sleep(0)
        with pytest.raises(AgentError, match=r"^the disk is full$"):
            await watch.ended()

    asyncio.run(run(story))


def test_a_job_that_fails_is_counted_and_logged(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        for _ in range(3):
            await watch.start("event-work", failing(1, nothing))
        assert watch.counts["tasks_failed/event-work"] == 3
        assert watch.troubles() == []

    asyncio.run(run(story))
    assert caplog.text.count("Traceback") == 1, "the first has its trace, a flood has not"
    assert "event-work failed (a handler, or an answer to a query)" in caplog.text


@pytest.mark.parametrize("name", ["peer-book", "driver", "event-work"])
def test_cancelling_is_no_failure(watch: Watch, name: str) -> None:
    async def story() -> None:
        task = watch.start(name, for_ever)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
        assert not watch.counts

    asyncio.run(run(story))


def test_timers_and_sockets_that_raise_are_counted(
    watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        watch.on_trouble(loop)
        loop.call_soon(lambda: [][0])
        loop.call_exception_handler({"message": "something without an exception"})
        await asyncio.sleep(0.01)
        assert watch.counts["tasks_failed/callback"] == 1

    asyncio.run(run(story))
    assert "something without an exception" in caplog.text


def test_threads_that_raise_are_counted(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # put back at the end

    async def story() -> None:
        watch.on_trouble(asyncio.get_running_loop())

        def fall() -> None:
            raise OSError

        thread = threading.Thread(target=fall)
        thread.start()
        await asyncio.to_thread(thread.join)

    asyncio.run(run(story))
    assert watch.counts["tasks_failed/thread"] == 1


def test_the_group_is_found_by_whoever_is_called(watch: Watch) -> None:
    """Tasks, and callbacks of timers, belong to the agent in whose context they were made."""

    async def story() -> None:
        watched.use(watch)
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        async def job() -> None:
            done.set()
            raise OSError

        loop.call_later(0, lambda: watched.start("link", job, "1"))
        await done.wait()
        await asyncio.sleep(0.01)
        assert watch.counts["tasks_failed/link"] == 1

    asyncio.run(run(story))


def test_without_an_agent_tasks_are_watched_all_the_same() -> None:
    async def story() -> None:
        await watched.start("link", failing(1, nothing))
        watched.report("link", OSError("x"))

    asyncio.run(run(story))


def test_a_set_of_tasks_ends_with_the_part_that_has_it() -> None:
    async def story() -> None:
        tasks, cleaned = TaskSet(), asyncio.Event()

        async def tidy() -> None:
            try:
                await for_ever()
            finally:
                await asyncio.sleep(0)
                cleaned.set()

        task = tasks.start("link", tidy, "1")
        tasks.start("link", failing(1, nothing), "2")
        assert len(tasks) == 2
        await asyncio.sleep(0)
        await tasks.stop()
        assert task.cancelled()
        assert cleaned.is_set(), "what they clean up is waited for"
        await asyncio.sleep(0)
        assert len(tasks) == 0
        await tasks.stop()

    asyncio.run(run(story))


def test_what_is_to_finish_is_waited_for_and_not_cut_off() -> None:
    async def story() -> None:
        tasks, may_end = TaskSet(), asyncio.Event()
        saved: list[int] = []

        async def save() -> None:
            await may_end.wait()
            saved.append(1)

        tasks.start("control-save", save)
        tasks.start("control-save", save)
        asyncio.get_running_loop().call_soon(may_end.set)
        await tasks.finish()
        assert saved == [1, 1]

    asyncio.run(run(story))


# ---- and there is no other ----------------------------------------------------------------------

STARTS = {"create_task", "ensure_future", "run_in_executor", "Thread", "Timer", "TaskGroup",
          "run_coroutine_threadsafe", "start_soon"}  # fmt: skip

ELSEWHERE = {
    # These wait for the task within the same function, and hear of its failure there.
    ("agent/api/membership.py", "_progress"): "waited for at once",
    ("agent/api/ndjson.py", "_lines"): "waited for, and ended with the stream",
    ("agent/api/ndjson.py", "_next"): "waited for at once",
    ("agent/apps/supervisor.py", "_pause"): "waited for at once",
    ("agent/apps/supervisor.py", "_watch"): "waited for at once",
    ("agent/admission/newcomer.py", "_arrive"): "waited for; the agent opens the same files next",
    ("agent/net/outgoing.py", "_connect_and_pump"): "waited for by _pump",
    ("agent/net/relay.py", "_join"): "waited for at once",
    ("agent/process.py", "serve_until_stopped"): "the agent itself, waited for at once",
    ("agent/process.py", "stop"): "waited for by serve_until_stopped",
    # And these hand their outcome to a watched task or to whoever waits for an answer.
    ("agent/http/connection.py", "_answer"): "its failure is logged, and ends the connection",
    ("agent/http/response.py", "__call__"): "waited for at once; what failed is raised there",
    ("agent/blocks/block_store.py", "_do"): "waited for at once",
    ("agent/blocks/file_reader.py", "_begin"): "waited for by read, which ends it otherwise",
    ("agent/api/kv_batch.py", "run"): "waited for at once",
    ("agent/blocks/file_writer.py", "write"): "waited for at once",
    ("agent/blocks/file_writer.py", "_begin"): "waited for by write",
    ("agent/doctor/device_checks.py", "_sync_time_within"): "its outcome is a future, waited for",
    ("agent/keys/key_service.py", "_serve"): "its answer is awaited by a watched task",
    ("agent/store/database.py", "*"): "calls into the writer thread, each waited for",
    ("agent/loop/stalls.py", "start"): "a thread; one that ends by an error is counted",
    (
        "agent/telemetry/uplink/threads.py",
        "in_thread",
    ): "its outcome is a future, which is waited for",
    ("agent/runtime/waiting.py", "until_stopped"): "waited for at once",
    ("agent/runtime/waiting.py", "without"): "waited for by until_stopped",
    ("agent/loop/watched.py", "start"): "here they are watched",
}
OTHERS = ("agent/cli/",)
"""Commands: they end when something fails, and say so."""


def _starts(path: Path) -> Iterator[tuple[str, str, int]]:
    """Yield file, function and line of everything that begins something in the background."""
    name = str(path.relative_to(ROOT))
    functions = [
        node for node in nodes(path) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    for node in nodes(path):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = called or getattr(node.func, "id", "")
        if called in STARTS:
            around = [f for f in functions if f.lineno <= node.lineno <= (f.end_lineno or 0)]
            inner = max(around, key=lambda f: f.lineno).name if around else ""
            yield name, inner, node.lineno


def _agent_files() -> list[Path]:
    files = sorted((ROOT / "agent").rglob("*.py"))
    return [each for each in files if not str(each.relative_to(ROOT)).startswith(OTHERS)]


def test_every_background_task_is_watched() -> None:
    found = [start for path in _agent_files() for start in _starts(path)]
    assert found, "the search finds nothing at all"
    unwatched = [
        f"{file}:{line} {function}"
        for file, function, line in found
        if (file, function) not in ELSEWHERE and (file, "*") not in ELSEWHERE
    ]
    assert not unwatched, "start these with agent/loop/watched.py:\n" + "\n".join(unwatched)


def test_no_exception_is_left_that_nobody_needs() -> None:
    found = {(file, name) for path in _agent_files() for file, function, _ in _starts(path)
             for name in (function, "*")}  # fmt: skip
    assert not ELSEWHERE.keys() - found


def test_the_search_sees_an_unwatched_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "a.py").write_text(
        "async def f():\n    asyncio.create_task(g())\n    threading.Thread(target=g).start()\n"
    )
    assert list(_starts(tmp_path / "a.py")) == [("a.py", "f", 2), ("a.py", "f", 3)]


def test_each_name_is_in_the_table_and_used() -> None:
    used = set()
    for path in _agent_files():
        for node in nodes(path):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="start" | "keep" | "_keep" | "_spawn" | "report")
                    | ast.Name(id="keep"),
                    args=[ast.Constant(value=str(name)), *_],
                ):
                    used.add(name)
    assert used == set(TASKS)


def test_each_kind_of_failure_is_needed() -> None:
    assert {failure for failure, _ in TASKS.values()} == set(Failure)
    assert all(words and not words.endswith(".") for _, words in TASKS.values())
