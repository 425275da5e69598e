"""Runs one app: ``python -m edge_apps NAME``; this is what the agent starts.

With ``--print``, readings go to stdout instead of an agent, and shared keys live in memory: the
way to look at an app while writing it, as ``covey app try`` does. With ``--once`` each function
that is called at intervals is called once, and that is all. ``--options '{"bay": "2"}'`` stands
in for its table of the configuration.
"""

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from edge_apps import runner
from edge_apps.app import App, Context
from edge_apps.loader import AppNotFound, find
from edge_apps.reading import Reading
from edge_apps.testing import MemoryAgreement, MemoryKv

USAGE = 2
OURS = Path(__file__).parent


def main(arguments: list[str] | None = None) -> int:
    """Run the app that the command line names; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m edge_apps", description="Run one app.")
    parser.add_argument("name", metavar="NAME", help="a built-in, installed or configured app")
    parser.add_argument("--print", action="store_true", help="print readings, use no agent")
    parser.add_argument("--once", action="store_true", help="call each function once, and end")
    parser.add_argument("--options", metavar="JSON", help="the app's options")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)-7s %(message)s")
    try:
        text = given.options
        options = runner.options_from(
            {runner.OPTIONS_VARIABLE: text} if text is not None else os.environ
        )
        app = find(given.name, options)
        app.periods(options)  # a wrong `every` is the caller's mistake: say so before starting
    except (AppNotFound, ValueError) as error:
        parser.exit(USAGE, f"{error}\n")
    except Exception as error:
        told = _in_their_code(error)
        logging.getLogger(given.name).exception("the app cannot be loaded", exc_info=told)
        return 1
    return _run(app, options, prints=given.print, once=given.once)


def _run(app: App, options: dict[str, object], *, prints: bool, once: bool) -> int:
    try:
        context = Context(
            app.name, options, _print, MemoryKv(), time.time, _drop, control=MemoryAgreement()
        )
        if once:
            for function, _ in app.periods(options):
                function(context)
            if heard := [*app.event_functions, *app.query_functions]:
                context.log.info("under an agent it also hears %s", ", ".join(heard))
        elif prints:
            runner.serve(app, context, runner.stopped_by_signals())
        else:
            runner.run(app, options)
    except Exception as error:
        logging.getLogger(app.name).exception("the app failed", exc_info=_in_their_code(error))
        return 1
    return 0


def _in_their_code(error: Exception) -> Exception:
    """Return an error whose stack begins in the app: how it was called is nothing to its author."""
    trace = error.__traceback__
    while trace is not None and _is_ours(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    if trace is None and not isinstance(error, SyntaxError):
        return error  # nothing of theirs took part: then all of it tells
    return error.with_traceback(trace)


def _is_ours(file: str) -> bool:
    path = Path(file)
    return path.parent == OURS or file.startswith("<frozen") or path.parent.name == "importlib"


def _drop(sensor: str, why: str) -> None:
    logging.getLogger(sensor).warning("dropped: %s", why)


def _print(reading: Reading) -> None:
    sys.stdout.write(msgspec.json.encode(reading).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    status = main()
    if os.environ.get(runner.GUARD_VARIABLE):
        # Processes that the app started go with it; we are leaving already.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        runner.end_group(signal.SIGTERM)
    sys.exit(status)
