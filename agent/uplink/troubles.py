"""The uplink's newest trouble: said once in the log, and shown until it is over."""

import logging

from agent.uplink import reasons

log = logging.getLogger(__name__)


class Troubles:
    """``error`` is a sentence, "" when all is well; ``hint`` says what to do about it."""

    def __init__(self) -> None:
        self.error = ""
        self._code = reasons.SUCCESS
        self._told: set[str] = set()  # what was logged since the last delivery

    @property
    def hint(self) -> str:
        """What a person can do about it, if anything is known."""
        return reasons.HINTS.get(self._code, "")

    def note(self, what: str, code: int, detail: str = "") -> None:
        """Remember a trouble, and log it unless that was done since the last delivery."""
        self.error, self._code = f"{what}: {detail or reasons.name_of(code)}", code
        self.warn(f"{self.error}. {self.hint or 'Readings wait in the outbox.'}")

    def warn(self, sentence: str) -> None:
        """Log a sentence, once between two deliveries."""
        if sentence not in self._told:
            self._told.add(sentence)
            log.warning("%s", sentence)

    def over(self) -> None:
        """Note that things are well again."""
        self.error, self._code = "", reasons.SUCCESS

    def delivered(self) -> None:
        """Note a delivery: what happens from now on is news again."""
        self._told.clear()
