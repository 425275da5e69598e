"""User events and queries: a layer on the membership, as Serf is on memberlist.

``lamport`` orders events, ``events`` delivers each once, ``event_sync`` brings those that were
missed, ``queries`` asks and gathers answers; ``plane`` wires them. The rooms of the membership do
not need it; only ``swim`` knows that it is there.
"""
