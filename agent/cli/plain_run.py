"""``covey run`` as services and most people call it: without click, which no agent needs.

What click and the commands' modules load would stay as long as the agent runs, 1.2 MiB on each
device. So a call that says nothing but where the agent lies is read here, and any other by click.
"""

from collections.abc import Sequence
from pathlib import Path


def run_if_plain(arguments: Sequence[str]) -> int | None:
    """Run the agent to its end, if that is all that is asked for; return the exit status.

    None, and nothing was done, when click has to look at the arguments.
    """
    match arguments:
        case ["run"]:
            return _run(None)
        case ["--dir", place, "run"] if place and _may_be_directory(Path(place)):
            return _run(Path(place))
    return None


def _run(directory: Path | None) -> int:
    from agent import exits
    from agent.config.paths import Paths
    from agent.process import run_agent

    try:
        run_agent(Paths.find(directory))
    except BaseException as error:  # noqa: BLE001 - what nobody foresaw is raised again
        from agent.cli.copyable import spoke_to
        from agent.cli.errors import status_of

        spoke_to(directory)
        return status_of(error)
    return exits.YES


def _may_be_directory(place: Path) -> bool:
    """Say whether it is one or can become one; if not, click knows the words for it."""
    try:
        return place.is_dir() or not place.exists()
    except (OSError, ValueError):
        return False
