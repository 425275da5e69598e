"""Randomness by name: one seed, many independent streams.

If every part of a simulation drew from one generator, switching a single fault off would shift
all the draws behind it, and the failure under study would be gone. So each part owns a stream
named after what it is for. A stream depends on the seed and its name alone: faults can then be
masked one class at a time (``--without crashes``) while everything else replays as before,
which is how a failing schedule is shrunk by hand.

>>> stream(7, "network").random() == stream(7, "network").random()
True
>>> stream(7, "network").random() == stream(7, "crashes").random()
False
"""

import random


def stream(seed: int, *name: object) -> random.Random:
    """Return the generator that belongs to this name under this seed."""
    return random.Random("/".join([str(seed), *map(str, name)]))
