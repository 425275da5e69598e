"""What an app can be in, and what moves it: one table.

The states are those of ``covey app list``. ``WAITING`` and ``FAILING`` both mean that the app
ended by itself and will be started again; ``FAILING`` says that this happened several times in
a row soon after the start, so that somebody should read its log.
"""

from enum import StrEnum


class AppState(StrEnum):
    """A state, with the word that the API and the command line use."""

    STOPPED = "stopped"
    RUNNING = "running"
    STOPPING = "stopping"
    WAITING = "waiting"
    FAILING = "failing"
    FINISHED = "finished"


class AppEvent(StrEnum):
    """What happens to an app: the first two are its owner's doing."""

    START = "start"
    STOP = "stop"
    ENDED = "ended"  # the process is gone, as it was told
    COMPLETED = "completed"  # it ended by itself, with exit status 0
    CRASHED = "crashed"  # it ended by itself in another way
    CRASHED_AGAIN = "crashed again"  # and has done so soon after each of its last starts


S, E = AppState, AppEvent

TRANSITIONS: dict[tuple[AppState, AppEvent], AppState] = {
    (S.STOPPED, E.START): S.RUNNING,
    (S.FINISHED, E.START): S.RUNNING,
    (S.WAITING, E.START): S.RUNNING,
    (S.FAILING, E.START): S.RUNNING,
    (S.RUNNING, E.STOP): S.STOPPING,
    (S.STOPPING, E.ENDED): S.STOPPED,
    (S.FINISHED, E.STOP): S.STOPPED,
    (S.WAITING, E.STOP): S.STOPPED,
    (S.FAILING, E.STOP): S.STOPPED,
    (S.RUNNING, E.COMPLETED): S.FINISHED,
    (S.RUNNING, E.CRASHED): S.WAITING,
    (S.RUNNING, E.CRASHED_AGAIN): S.FAILING,
}
