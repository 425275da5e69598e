"""Which version of MQTT to speak: 5 where the broker knows it, else 3.1.1.

A broker that does not know version 5 says so (0x84; 0x01 in the old numbering), closes the
connection, or keeps silent: an old one takes the new properties for a length and waits for the
rest. An answer is believed at once. Closing also happens while a broker restarts, so it takes
two in a row; silence has cost its waiting already, so the older version is tried next, and the
first round of both waits only briefly. In any case it is a connection with 3.1.1 that works
which settles the matter, and what a broker turned out to speak is not doubted lightly.

What silence taught is remembered over restarts of the agent (``BrokerMemory``), for a day: a
broker may have been replaced by one that knows more.
"""

from typing import Literal

import msgspec

from agent.telemetry.uplink import reason_codes

Version = Literal["5", "3.1.1"]
SILENCES_MAX = 2
# So many in a row make us doubt what worked before: the broker may be another one now.
SILENCES_PROVEN_MAX = 10
RECHECK_S = 86_400.0
# How long to wait for the answer to a CONNECT: briefly while it is unclear which version is
# spoken, and else long enough for the slowest radio.
BRIEF_S, PATIENT_S = 3.0, 10.0


class Spoken(msgspec.Struct, frozen=True):
    """What a broker turned out to speak, and when (Unix seconds)."""

    version: Version
    at_s: float


class VersionFallback:
    """Decides which version the next attempt speaks, and how long it waits for an answer."""

    def __init__(self, configured: Version, spoken: Spoken | None = None) -> None:
        self._configured = configured
        self._spoken = spoken if configured == "5" else None
        self._silences = 0
        self._rounds = 0  # attempts with both versions that got no answer
        self.current = self._spoken.version if self._spoken else configured
        self._proven = configured == "3.1.1" or self._spoken is not None

    @property
    def fell_back(self) -> bool:
        """Whether the broker made us speak the older version."""
        return self.current != self._configured

    @property
    def patience_s(self) -> float:
        """How long the next attempt waits for the broker's answer, in seconds."""
        return PATIENT_S if self._proven or self._rounds else BRIEF_S

    def begin(self, now_s: float) -> Version:
        """Return the version of the next attempt: after a day, also 5 again."""
        if self.fell_back and self._spoken and not 0 <= now_s - self._spoken.at_s < RECHECK_S:
            self._spoken, self._proven = None, False
            self._change("5")
        return self.current

    def connected(self, now_s: float) -> Spoken:
        """Note that the broker accepted the current version; return what is to be remembered."""
        self._proven = True
        self._silences = self._rounds = 0
        if self._spoken is None or self._spoken.version != self.current or not self.fell_back:
            self._spoken = Spoken(self.current, now_s)
        return self._spoken

    def failed(self, code: int) -> bool:
        """Note a refused connection; tell whether the version was changed because of it."""
        if code == reason_codes.UNSUPPORTED_VERSION and self.current == "5":
            return self._change("3.1.1")
        if self._configured == "3.1.1" or code == reason_codes.UNREACHABLE:
            return False
        self._silences = self._silences + 1 if code in reason_codes.SILENT else 0
        if self._proven:
            if self._silences < SILENCES_PROVEN_MAX:
                return False
            self._proven, self._spoken = False, None
        elif self.fell_back:  # 3.1.1 fares no better: the version was not the reason
            self._rounds += 1
            return self._change("5")
        if code == reason_codes.NO_ANSWER or self._silences >= SILENCES_MAX:
            return self._change("3.1.1" if self.current == "5" else "5")
        return False

    def _change(self, version: Version) -> bool:
        self.current, self._silences = version, 0
        return True
