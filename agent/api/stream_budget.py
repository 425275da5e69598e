"""How much is under way on all streams of shared keys of an agent together."""


class StreamBudget:
    """Counts the bytes of questions that are under way."""

    def __init__(self) -> None:
        self.asked_bytes = 0
