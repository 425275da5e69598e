"""What the owner wants: which apps are to run, kept over restarts of the agent.

The configuration says where an app begins (``enabled``). ``covey app start`` and ``stop`` are
wishes that come later and win; they are kept in ``<data>/apps.json``, written to the side, synced
and renamed, so that a power cut leaves the old wishes or the new ones, and with a spare.
"""

import contextlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path

from agent.exits import AgentError
from agent.identity.spares import read_spare, replace_with_spare

log = logging.getLogger(__name__)


class DesiredApps:
    """The wishes in one file: name to True (run) or False (do not)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wishes = _read(path)

    def names(self) -> set[str]:
        """Return the apps that somebody asked to run, known to the configuration or not."""
        return {name for name, runs in self._wishes.items() if runs}

    def runs(self, name: str, *, enabled: bool) -> bool:
        """Say whether the app is to run; ``enabled`` decides where nobody asked."""
        return self._wishes.get(name, enabled)

    def wish(self, name: str, *, runs: bool) -> None:
        """Keep a wish. Raises AgentError when it cannot be written; the old wish then stays."""
        if self._wishes.get(name) == runs:
            return
        wishes = {**self._wishes, name: runs}
        try:
            _write(self._path, wishes)
        except OSError as error:
            verb = "start" if runs else "stop"
            raise AgentError(
                f"did not {verb} {name}: cannot write {self._path}: {error.strerror}",
                "free some disk space or make the directory writable, then repeat the command",
            ) from error
        self._wishes = wishes

    def forget(self, name: str) -> None:
        """Keep no wish about an app that is gone; one that cannot be dropped now is so later."""
        wishes = {other: runs for other, runs in self._wishes.items() if other != name}
        with contextlib.suppress(OSError):
            _write(self._path, wishes)
        self._wishes = wishes


def _read(path: Path) -> dict[str, bool]:
    try:
        wishes = json.loads(path.read_bytes())
        return {str(name): bool(runs) for name, runs in wishes.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError) as error:
        return _read_spare(path, error)


def _read_spare(path: Path, error: Exception) -> dict[str, bool]:
    """Return what was kept twice.

    An agent that does not come up because of this would be worse than one app too many.
    """
    spare = read_spare(path)
    if spare is None:
        log.error("cannot read %s (%s): apps run as the configuration says", path, error)
        return {}
    log.error("cannot read %s (%s): its spare is used. Check this device's disk.", path, error)
    return {str(name): bool(runs) for name, runs in json.loads(spare).items()}


def _write(path: Path, wishes: Mapping[str, bool]) -> None:
    replace_with_spare(path, json.dumps(dict(sorted(wishes.items())), indent=2).encode())
