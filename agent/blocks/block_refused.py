"""Why a block was not stored, or is not to be had; the reasons travel between members."""

from gossip.core.errors import CoveyError

FULL, BUSY, DAMAGED, MISSING, DISK = "full", "busy", "damaged", "missing", "disk"

WORDS = {
    FULL: "has no room",
    BUSY: "has too much to do",
    DAMAGED: "got or has it damaged",
    MISSING: "has it not",
    DISK: "cannot use its disk",
}
"""What each means of a node."""


class BlockRefused(CoveyError):
    """A block was not stored, or is not to be had here. ``detail`` is for the log."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
