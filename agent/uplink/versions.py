"""Which version of MQTT to speak: 5 where the broker knows it, else 3.1.1.

A broker that does not know version 5 says so (0x84; 0x01 in the old numbering) or just closes
the connection. The first is an answer and is believed at once. The second also happens while a
broker restarts, so it takes two in a row, from a broker that never spoke version 5 to us, and a
connection with 3.1.1 that works, before we settle for less.
"""

from typing import Literal

from agent.uplink import reasons

Version = Literal["5", "3.1.1"]
SILENCES_MAX = 2


class VersionChoice:
    """Remembers, until the agent restarts, what the broker turned out to speak."""

    def __init__(self, configured: Version) -> None:
        self.current: Version = configured
        self.fell_back = False
        self._proven = configured == "3.1.1"
        self._silences = 0

    def connected(self) -> None:
        """Note that the broker accepted the current version."""
        self._proven = True

    def failed(self, code: int) -> bool:
        """Note a refused connection; tell whether the version was changed because of it."""
        if code == reasons.UNSUPPORTED_VERSION and self.current == "5":
            return self._change("3.1.1", fell_back=True)
        if self._proven or code == reasons.UNREACHABLE:
            return False
        if self.fell_back:  # 3.1.1 fares no better: the version was not the reason
            return self._change("5", fell_back=False)
        self._silences = self._silences + 1 if code == reasons.SILENCE else 0
        if self._silences >= SILENCES_MAX:
            return self._change("3.1.1", fell_back=True)
        return False

    def _change(self, version: Version, *, fell_back: bool) -> bool:
        self.current, self.fell_back, self._silences = version, fell_back, 0
        return True
