"""Every bound of the control plane's state, and the one budget that all of it shares.

The state is held in memory by each voter and by each follower's copy, and travels whole as a
snapshot, so it is small by design: settings, locks, who belongs; never readings. A bound is a part
of the protocol: all replicas must refuse the same command, so these numbers change only together
with the version of the commands.
"""

from gossip.core.errors import InvalidRequest

KEY_BYTES_MAX = 512
VALUE_BYTES_MAX = 64 * 1024
NAME_BYTES_MAX = 256
"""Names of locks and barriers, and labels of sessions."""
LOCK_VALUE_BYTES_MAX = 4 * 1024
"""What a holder or a candidate says about itself."""

STATE_BYTES_MAX = 64 * 2**20
"""Keys, values, sessions, locks and barriers together, each with what it costs to keep."""
RESERVE_BYTES = 8 * 2**20
"""Above that, for what Covey itself keeps there: who belongs, tokens, access, fleet settings.
However full the users' part is, devices can be let in and put out."""
ENTRY_BYTES = 64
"""Counted for each key, session, holder or waiter beside its own bytes."""

OPERATIONS_MAX = 128
"""Of each of the three lists of a transaction; etcd's bound, too."""
COMMAND_BYTES_MAX = 512 * 1024
"""One command, so that it fits a frame (1 MiB) with others beside it."""
RESULT_BYTES_MAX = 128 * 1024
"""What the reads of one transaction may return: its outcome is kept until it is settled."""
RANGE_ENTRIES_MAX = 1000

REGISTRY_BYTES_MAX = 384 * 1024
"""A signed registry; two thousand nodes have room in it, and a command beside it."""
TOKENS_CHANGED_MAX = 512
"""Of one change: another authority ends all that are good at once, and twice as many have room."""
TOKEN_ID_BYTES_MAX = 64
TOKEN_BYTES_MAX = 16 * 1024
TOKENS_BYTES_MAX = 256 * 1024
"""All tokens together: they are read at once, with the registry."""

SESSIONS_MAX = 10_000
LABEL_SESSIONS_MAX = 2_000
"""Of one label, which is what an app's sessions have, or those of a token for some keys: none of
them takes all that there are."""
SESSION_TTL_MS_MIN = 2_000
SESSION_TTL_MS_MAX = 86_400_000
LOCK_DELAY_MS_DEFAULT = 15_000
"""Consul's and Chubby's: how long a lock stays shut whose holder was lost."""
LOCK_DELAY_MS_MAX = 600_000
PERMITS_MAX = 1_000
BARRIER_COUNT_MAX = 1_000

CLIENTS_MAX = 1_024
CLIENT_OUTCOMES_MAX = 256
"""Commands of one client that may be unsettled at a time."""
CLIENT_BYTES_MAX = 4 * 2**20
CLIENTS_BYTES_MAX = 32 * 2**20

HISTORY_CHANGES_MAX = 10_000
HISTORY_BYTES_MAX = 8 * 2**20
"""What each replica remembers of past changes, for watches that resume."""

UINT64_MAX = 2**64 - 1


class Space:
    """Counts the bytes of the replicated state against their bound."""

    def __init__(self, limit_bytes: int = STATE_BYTES_MAX) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0

    def fits(self, more_bytes: int, *, is_own: bool = False) -> bool:
        """Tell whether so many bytes more would be within the bound; less always are.

        ``is_own``: they are Covey's own, for which there is a reserve.
        """
        if more_bytes <= 0:
            return True
        limit_bytes = self.limit_bytes + RESERVE_BYTES * is_own
        return self.used_bytes + more_bytes <= limit_bytes

    def add(self, more_bytes: int) -> None:
        """Count bytes that came, or went (negative)."""
        self.used_bytes += more_bytes
        assert self.used_bytes >= 0, "nothing is given back that was not counted"


def check_text(text: str, what: str, bytes_max: int, bytes_min: int = 1) -> None:
    """Raise InvalidRequest unless a text is UTF-8 of a size between these bounds."""
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"{what} is text in UTF-8; this one has a lone surrogate") from None
    if not bytes_min <= size <= bytes_max:
        raise InvalidRequest(f"{what} has {bytes_min} to {bytes_max} bytes, not {size}")


def check_number(number: int, what: str, least: int, most: int) -> None:
    """Raise InvalidRequest unless a number lies between these bounds."""
    if not least <= number <= most:
        raise InvalidRequest(f"{what} is {least} to {most}, not {number}")
