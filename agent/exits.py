"""Exit statuses, and the error that carries one to whoever started the command.

Scripts branch on exit statuses, so each means one thing and keeps it. 0 to 7 answer the
question that a command asks; 10 to 15 tell apart the ways in which joining can be refused,
because an installer reacts differently to each; 78 is EX_CONFIG of sysexits.h, which the
systemd unit lists under ``RestartPreventExitStatus=``: a broken file does not heal by restarting.

``AgentError`` is the one exception that a person sees. It carries what happened, what to do
next, and the status; the command line prints it, the HTTP API puts it into its error body.
"""

from gossip.core.errors import CoveyError

YES = 0
NO = 1
USAGE = 2
NOT_FOUND = 3
TIMED_OUT = 4
UNREACHABLE = 5
UNHEALTHY = 6
NOT_PERMITTED = 7
TOKEN_UNKNOWN = 10
TOKEN_EXPIRED = 11
TOKEN_USED_UP = 12
TOKEN_FOREIGN = 13
CLOCK_OFF = 14
NAME_TAKEN = 15
BAD_CONFIG = 78
INTERRUPTED = 130  # 128 + SIGINT, what a shell reports for Ctrl-C

# status: (the word that the HTTP API and `-o json` use, the meaning as documented)
MEANINGS: dict[int, tuple[str, str]] = {
    YES: ("ok", "it worked, or the answer is yes"),
    NO: ("failed", "it ran and failed, or the answer is no"),
    USAGE: ("usage", "the command line or the request was not understood"),
    NOT_FOUND: ("not-found", "the key, member, app or file does not exist"),
    TIMED_OUT: ("timed-out", "no answer in time"),
    UNREACHABLE: ("unreachable", "the agent is not running, or cannot be reached"),
    UNHEALTHY: ("unhealthy", "a partial result: indeterminate, unavailable or not ready"),
    NOT_PERMITTED: ("not-permitted", "the file system, the API or the cluster refused"),
    TOKEN_UNKNOWN: ("token-unknown", "join: the cluster does not know this token"),
    TOKEN_EXPIRED: ("token-expired", "join: the token's time is over"),
    TOKEN_USED_UP: ("token-used-up", "join: the token was used as often as it allowed"),
    TOKEN_FOREIGN: ("token-foreign", "join: the token belongs to another cluster"),
    CLOCK_OFF: ("clock-off", "join: this device's clock is too far off"),
    NAME_TAKEN: ("name-taken", "join: another node of the cluster has this name"),
    BAD_CONFIG: ("bad-config", "the configuration is wrong"),
    INTERRUPTED: ("interrupted", "stopped by Ctrl-C"),
}


STATUSES: dict[str, int] = {word: status for status, (word, _) in MEANINGS.items()}


def word_of(status: int) -> str:
    """Return the stable word for a status, ``failed`` for one that we do not define."""
    return MEANINGS.get(status, MEANINGS[NO])[0]


class AgentError(CoveyError):
    """An error for a person: what happened (and what state was kept), what to do, the status.

    ``hint`` is one sentence that says what to do next; empty when there is nothing to do.
    """

    def __init__(self, message: str, hint: str = "", status: int = NO) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.status = status

    @property
    def code(self) -> str:
        """The stable word that machines see in place of the status."""
        return word_of(self.status)
