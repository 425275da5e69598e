"""The uplink's newest trouble: said once in the log, and shown until it is over."""

import logging

from agent.telemetry.uplink import reason_codes

log = logging.getLogger(__name__)


class Troubles:
    """``error`` is a sentence, "" when all is well; ``hint`` says what to do about it."""

    def __init__(self) -> None:
        self.error = ""
        self.hint = ""
        self._logged: set[str] = set()  # what was logged since the last delivery

    def record(self, what: str, code: int, detail: str = "", *, connecting: bool = False) -> None:
        """Remember a trouble, and log it unless that was done since the last delivery."""
        self.error = f"{what}: {detail or reason_codes.name_of(code)}"
        self.hint = (reason_codes.CONNECT_HINTS if connecting else reason_codes.HINTS).get(code, "")
        self.warn(f"{self.error}. {self.hint or 'Readings wait in the outbox.'}")

    def warn(self, sentence: str) -> None:
        """Log a sentence, once between two deliveries."""
        if sentence not in self._logged:
            self._logged.add(sentence)
            log.warning("%s", sentence)

    def over(self) -> None:
        """Note that things are well again."""
        self.error = self.hint = ""

    def delivered(self) -> None:
        """Note a delivery while no reading is in trouble: what happens from now on is news."""
        self._logged.clear()
