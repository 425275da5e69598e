"""How fast a body has to come: slow links have time, and who holds on for its own sake does not."""


class Pace:
    """So many bytes a second, with so much patience for a sender that falls behind."""

    def __init__(self, bytes_per_s: float, patience_s: float, now: float) -> None:
        """``now`` is the loop's time, in seconds, here and below."""
        self._bytes_per_s, self._patience_s = bytes_per_s, patience_s
        self.slow_at = now + patience_s
        """When it will have been too slow, if nothing more comes."""

    def record(self, size_bytes: int, now: float) -> None:
        """Take in that so much came: each byte earns the time that it may take, none earns more."""
        earned_s = size_bytes / self._bytes_per_s
        self.slow_at = min(now + self._patience_s, max(now, self.slow_at) + earned_s)

    def restart(self, now: float) -> None:
        """Begin anew: for a while it was not the sender's fault that nothing came."""
        self.slow_at = now + self._patience_s
