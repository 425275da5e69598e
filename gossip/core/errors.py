"""Errors of the pure floor, split by whose fault they are.

    CoveyError
    ├── LocalError        we, or our caller, asked for something that cannot be
    │   ├── LimitExceeded     a value is larger than the protocol carries
    │   └── InvalidRequest    a request that no state could satisfy
    └── RemoteError       a peer sent something that it should not have
        ├── Malformed         bytes that do not decode
        ├── Forged            a seal or signature that does not verify
        │   └── UnknownKey        a seal under a key that we do not hold
        ├── Replayed          a datagram that was seen before, or is too old to tell
        └── SetAside          something that ended this agent before

A RemoteError never changes state: whoever catches it counts it under its label and goes on.
"""

from typing import ClassVar


class CoveyError(Exception):
    """Base of all errors raised on purpose by Covey."""


class LocalError(CoveyError):
    """Our own side, or its caller, broke a rule; no state was changed."""


class LimitExceeded(LocalError):
    """A value is larger than the protocol carries; the message names the limit."""


class InvalidRequest(LocalError):
    """A request that no state of the system could satisfy, such as W greater than N."""


class RemoteError(CoveyError):
    """A peer, or somebody posing as one, broke a rule; no state was changed."""

    label: ClassVar[str] = "refused"
    """What it is called in ``/metrics``: this is never changed with a class name."""


class Malformed(RemoteError):
    """Bytes that are not a message of any version that we know how to skip."""

    label = "malformed"


class Forged(RemoteError):
    """A seal or signature that does not verify under any key that we hold."""

    label = "forged"


class UnknownKey(Forged):
    """A seal under a key that we do not hold; who ``sender`` is was not proved."""

    label = "unknownkey"

    def __init__(self, message: str, sender: int) -> None:
        super().__init__(message)
        self.sender = sender


class Replayed(RemoteError):
    """A datagram whose counter was seen before, or fell out of the window."""

    label = "replayed"


class SetAside(RemoteError):
    """Something that ended this agent twice: it is not taken in again (``trials.py``)."""

    label = "setaside"
